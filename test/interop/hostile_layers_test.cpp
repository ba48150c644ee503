// Headers and flags that nobody should have written.

#include <gtest/gtest.h>

#include <cerrno>
#include <limits>

#include "test/interop/script_model.h"
#include "test/interop/workspace.h"

namespace obd::interop {
namespace {

namespace fs = std::filesystem;

// Offsets of fields within a header or trailer.
constexpr uint64_t kFlagsAt = 28;
constexpr uint64_t kIndexOffsetAt = 32;
constexpr uint64_t kIndexSizeAt = 40;
constexpr uint64_t kVirtualSizeAt = 48;
constexpr uint64_t kUuidAt = 56;

class HostileSealedLayer : public testing::Test {
 protected:
  HostileSealedLayer() {
    make_layer(layer_, disk_);
    config_ = make_config(workspace_.path(), {"layer.lsmt"}, std::nullopt);
  }

  void patch_trailer(uint64_t field, uint64_t value, size_t size = 8) {
    patch(layer_, fs::file_size(layer_) - 4096 + field, little_endian(value, size));
  }

  Workspace workspace_;
  std::string layer_ = workspace_ / "layer.lsmt";
  Bytes disk_ = random_bytes(1, 64 * kKiB);
  std::string config_;
};

TEST_F(HostileSealedLayer, UnknownFlagsOpenWithAWarning) {
  patch_trailer(kFlagsAt, 0x06 | 0x240, 4);
  const auto image = open_readable(config_);
  EXPECT_SAME_BYTES(read_disk(*image), disk_);
  EXPECT_TRUE(mentions(warnings_of(*image), {"layer.lsmt", "flag", "0x240"}))
      << warnings_of(*image);
}

TEST_F(HostileSealedLayer, UnknownFlagsInTheHeaderOpenWithAWarning) {
  patch(layer_, kFlagsAt, little_endian(0x07 | 0x80000000U, 4));
  const auto image = open_readable(config_);
  EXPECT_SAME_BYTES(read_disk(*image), disk_);
  EXPECT_TRUE(mentions(warnings_of(*image), {"layer.lsmt", "flag", "0x80000000"}))
      << warnings_of(*image);
}

TEST_F(HostileSealedLayer, VersionSizeAndTagOfEntriesAreIgnored) {
  patch(layer_, 24, little_endian(0xFFFFFFFF, 4));
  patch_trailer(24, 0, 4);
  patch_trailer(132, 0xFFFF, 2);
  const uint64_t index = fs::file_size(layer_) - 4096 - 512;
  const std::string entry = read_text(layer_).substr(index, 16);
  ASSERT_EQ(entry[15], '\0');
  patch(layer_, index + 15, "\x07");
  EXPECT_SAME_BYTES(read_disk(*open_readable(config_)), disk_);
}

TEST_F(HostileSealedLayer, UuidThatIsNoneIsIgnored) {
  patch_trailer(kUuidAt, std::numeric_limits<uint64_t>::max());
  const auto image = open_readable(config_);
  EXPECT_SAME_BYTES(read_disk(*image), disk_);
}

TEST_F(HostileSealedLayer, IndexOffsetThatOverflowsIsRefused) {
  patch_trailer(kIndexOffsetAt, std::numeric_limits<uint64_t>::max() - 511);
  const Error error = open_error(config_, Access::read_only);
  EXPECT_EQ(error.code, EINVAL);
  EXPECT_TRUE(mentions(error.message, {"layer.lsmt", "index_offset"})) << error.message;
}

TEST_F(HostileSealedLayer, IndexInTheHeaderIsRefused) {
  patch_trailer(kIndexOffsetAt, 0);
  const Error error = open_error(config_, Access::read_only);
  EXPECT_EQ(error.code, EINVAL);
  EXPECT_TRUE(mentions(error.message, {"layer.lsmt", "index_offset"})) << error.message;
}

TEST_F(HostileSealedLayer, IndexSizeThatOverflowsIsRefused) {
  for (const uint64_t size : {uint64_t{1} << 60, std::numeric_limits<uint64_t>::max()}) {
    patch_trailer(kIndexSizeAt, size);
    const Error error = open_error(config_, Access::read_only);
    EXPECT_EQ(error.code, EINVAL);
    EXPECT_TRUE(mentions(error.message, {"layer.lsmt", "index_size", std::to_string(size)}))
        << error.message;
  }
}

TEST_F(HostileSealedLayer, VirtualSizeAboveTheLargestDiskIsRefused) {
  patch_trailer(kVirtualSizeAt, uint64_t{1} << 63);
  const Error error = open_error(config_, Access::read_only);
  EXPECT_EQ(error.code, EINVAL);
  EXPECT_TRUE(mentions(error.message, {"layer.lsmt", "virtual_size", "9223372036854775808"}))
      << error.message;
}

class HostileUpper : public testing::TestWithParam<UpperKind> {
 protected:
  HostileUpper()
      : config_(make_image(workspace_.path(), GetParam(), kMiB)),
        data_(workspace_ / "writable_data"),
        index_(workspace_ / "writable_index") {
    const auto image = open_writable(config_);
    must(image->write(content_, 8192));
    must(image->close());
  }

  Workspace workspace_;
  std::string config_;
  std::string data_;
  std::string index_;
  Bytes content_ = random_bytes(1, 65536);
};

TEST_P(HostileUpper, UnknownFlagsOpenForReadingAlone) {
  for (const std::string& file : {data_, index_}) {
    const std::string before = read_text(file);
    const auto flags = static_cast<unsigned char>(before[kFlagsAt]);
    patch(file, kFlagsAt, little_endian(flags | 0x40U, 4));
    const auto state = folder_state(workspace_.path());
    const Error error = open_error(config_, Access::read_write);
    EXPECT_EQ(error.code, ENOTSUP);
    EXPECT_TRUE(mentions(error.message, {fs::path(file).filename(), "flag", "0x40"}))
        << error.message;
    {
      const auto image = open_readable(config_);
      EXPECT_FALSE(image->writable());
      EXPECT_SAME_BYTES(read_range(*image, 8192, 65536), content_);
      EXPECT_TRUE(mentions(warnings_of(*image), {"0x40"})) << warnings_of(*image);
    }
    EXPECT_TRUE(state == folder_state(workspace_.path()));
    patch(file, 0, before.substr(0, 4096));
  }
}

TEST_P(HostileUpper, FilesOfTwoLayersAreRefused) {
  const Workspace other;
  make_image(other.path(), GetParam(), kMiB);
  fs::copy_file(other / "writable_index", index_, fs::copy_options::overwrite_existing);
  const auto state = folder_state(workspace_.path());
  const Error error = open_error(config_, Access::read_write);
  EXPECT_EQ(error.code, EINVAL);
  EXPECT_TRUE(mentions(error.message, {"writable_index", "uuid"})) << error.message;
  EXPECT_TRUE(state == folder_state(workspace_.path()));
}

// The words of an error for a file of the pair that is cut short.
TEST_P(HostileUpper, TruncatedHeadersAreRefused) {
  for (const std::string& file : {data_, index_}) {
    const std::string before = read_text(file);
    for (const uint64_t size : {uint64_t{100}, uint64_t{4095}}) {
      fs::resize_file(file, size);
      const Error error = open_error(config_, Access::read_write);
      EXPECT_EQ(error.code, EINVAL);
      EXPECT_TRUE(mentions(error.message, {fs::path(file).filename()})) << error.message;
      write_text(file, before);
    }
  }
}

TEST_P(HostileUpper, VirtualSizeOfNoSectorsIsRefused) {
  patch(index_, kVirtualSizeAt, little_endian(kMiB + 1, 8));
  const Error error = open_error(config_, Access::read_write);
  EXPECT_EQ(error.code, EINVAL);
  EXPECT_TRUE(mentions(error.message, {"writable_index", "virtual_size", "1048577"}))
      << error.message;
}

INSTANTIATE_TEST_SUITE_P(Kinds, HostileUpper, testing::Values(UpperKind::append, UpperKind::sparse),
                         [](const auto& kind) { return name_of(kind.param); });

}  // namespace
}  // namespace obd::interop
