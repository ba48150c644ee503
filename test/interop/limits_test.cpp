// The largest disks, the deepest stacks and the longest indexes.

#include <gtest/gtest.h>

#include <cerrno>

#include "core/format/lsmt.h"
#include "core/layer/layer_writer.h"
#include "test/interop/script_model.h"
#include "test/interop/workspace.h"

namespace obd::interop {
namespace {

// The last 4 KiB that an index entry can name.
constexpr uint64_t kLastPlace = lsmt::kAddressableEnd.bytes() / 4096 * 4096 - 4096;

TEST(Limits, LargestDiskIsServedFromSealedLayers) {
  const Workspace workspace;
  const Bytes data = random_bytes(1, 4096);
  LayerOptions options;
  options.virtual_size = kMaxDiskSize;
  auto writer = must(LayerWriter::create(posix_file_system(), workspace / "layer.lsmt", options));
  must(writer->append_data(Sectors(0), data));
  must(writer->append_data(Sectors::floor(4 * kTiB), data));
  must(writer->append_data(Sectors::floor(kLastPlace), data));
  must(writer->finish());
  const auto image = open_readable(make_config(workspace.path(), {"layer.lsmt"}, std::nullopt));
  ASSERT_EQ(image->size(), kMaxDiskSize);
  for (const uint64_t offset : {uint64_t{0}, 4 * kTiB, kLastPlace}) {
    EXPECT_SAME_BYTES(read_range(*image, offset, 4096), data);
  }
  EXPECT_SAME_BYTES(read_range(*image, kMaxDiskSize - 4096, 4096), Bytes(4096));
  uint64_t seen = 0;
  must(image->extents(0, kMaxDiskSize, [&](const ImageExtent& extent) {
    EXPECT_EQ(extent.offset, seen);
    seen += extent.length;
    return true;
  }));
  EXPECT_EQ(seen, kMaxDiskSize);
}

// An entry has 50 bits for its offset: what lies past them reads as zeros and cannot be written.
TEST(Limits, LargestDiskIsServedFromAnAppendUpper) {
  const Workspace workspace;
  const std::string config = make_image(workspace.path(), UpperKind::append, kMaxDiskSize);
  const Bytes data = random_bytes(1, 4096);
  auto image = open_writable(config);
  ASSERT_EQ(image->size(), kMaxDiskSize);
  must(image->write(data, 4 * kTiB));
  must(image->write(data, kLastPlace));
  EXPECT_FALSE(image->write(data, kMaxDiskSize - 4096));
  EXPECT_FALSE(image->write(data, lsmt::kAddressableEnd.bytes()));
  close_image(image);
  image = open_writable(config);
  EXPECT_SAME_BYTES(read_range(*image, 4 * kTiB, 4096), data);
  EXPECT_SAME_BYTES(read_range(*image, kLastPlace, 4096), data);
  EXPECT_SAME_BYTES(read_range(*image, kMaxDiskSize - 4096, 4096), Bytes(4096));
}

// Layer i holds its number in block i, and its block also covers half of the one below.
class Depth : public testing::Test {
 protected:
  std::string stack_of(size_t layers, bool with_upper) {
    std::vector<std::string> lowers;
    for (size_t i = 0; i < layers; ++i) {
      lowers.push_back(workspace_ / ("layer" + std::to_string(i)));
      LayerOptions options;
      options.virtual_size = kMiB;
      auto writer = must(LayerWriter::create(posix_file_system(), lowers.back(), options));
      must(writer->append_data(Sectors(i), random_bytes(i + 1, 1024)));
      must(writer->finish());
    }
    std::optional<UpperFiles> upper;
    if (with_upper) upper = make_upper(workspace_.path(), UpperKind::append, 0);
    return make_config(workspace_.path(), lowers, upper);
  }

  Workspace workspace_;
};

TEST_F(Depth, AStackOf255LowersAndAnUpperOpens) {
  const auto image = open_writable(stack_of(255, true));
  EXPECT_TRUE(image->writable());
  FlatDisk disk(kMiB);
  for (size_t i = 0; i < 255; ++i) disk.write(i * 512, random_bytes(i + 1, 1024));
  EXPECT_SAME_BYTES(read_disk(*image), disk.bytes());
  const Bytes data = random_bytes(999, 700);
  must(image->write(data, 100));
  disk.write(100, data);
  EXPECT_SAME_BYTES(read_disk(*image), disk.bytes());
  EXPECT_EQ(must(image->layers()).size(), 256U);
}

TEST_F(Depth, AStackOf256LowersIsRefused) {
  const Error error = open_error(stack_of(256, false), Access::read_only);
  EXPECT_EQ(error.code, EINVAL);
  EXPECT_TRUE(mentions(error.message, {"config.v1.json", "lowers", "256", "255"})) << error.message;
}

// A 255th lower leaves no room for the upper's own layer once it is sealed.
TEST_F(Depth, SealingOnto255LowersIsRefused) {
  const std::string config = stack_of(255, true);
  const auto before = folder_state(workspace_.path());
  const Error error = error_of(seal_image(posix_file_system(), config));
  EXPECT_TRUE(mentions(error.message, {"255"})) << error.message;
  EXPECT_TRUE(before == folder_state(workspace_.path()));
}

// More entries than overlaybd opens.
TEST(Limits, LayerOfMoreThanAMillionEntriesOpensWithAWarning) {
  const Workspace workspace;
  constexpr uint64_t kEntries = lsmt::kMaxUpstreamEntries + 1;
  LayerOptions options;
  options.virtual_size = kEntries * 1024;
  auto writer = must(LayerWriter::create(posix_file_system(), workspace / "layer.lsmt", options));
  for (uint64_t i = 0; i + 1 < kEntries; ++i) must(writer->append_zero(Sectors(2 * i), Sectors(1)));
  const Bytes data = random_bytes(1, 512);
  must(writer->append_data(Sectors(2 * (kEntries - 1)), data));
  ASSERT_EQ(writer->entry_count(), kEntries);
  must(writer->finish());
  const auto image = open_readable(make_config(workspace.path(), {"layer.lsmt"}, std::nullopt));
  EXPECT_SAME_BYTES(read_range(*image, (kEntries - 1) * 1024, 512), data);
  EXPECT_TRUE(mentions(warnings_of(*image), {"layer.lsmt", "1000000"})) << warnings_of(*image);
}

}  // namespace
}  // namespace obd::interop
