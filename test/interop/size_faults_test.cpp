// Faults of sizes that are known from overlaybd, one test for each: none is here.

#include <gtest/gtest.h>

#include <cerrno>
#include <span>

#include "core/layer/layer_writer.h"
#include "test/interop/fixture_set.h"
#include "test/interop/script_model.h"
#include "test/interop/upstream_rules.h"
#include "test/interop/workspace.h"

namespace obd::interop {
namespace {

namespace fs = std::filesystem;

std::string write_layer(const std::string& path, uint64_t virtual_size,
                        const std::vector<ScriptWrite>& writes) {
  LayerOptions options;
  options.virtual_size = virtual_size;
  auto writer = must(LayerWriter::create(posix_file_system(), path, options));
  for (const ScriptWrite& write : writes) {
    must(writer->append_data(Sectors::floor(write.offset), write.data));
  }
  must(writer->finish());
  return path;
}

// Sector numbers above 2^32, in a stack of sealed layers.
TEST(SizeFaults, DiskAboveTwoTebibytesReadsRightFromSealedLayers) {
  const Workspace workspace;
  const auto probes = read_script(fixture_folder() / "bad" / "big4t.script");
  std::vector<ScriptWrite> odd;
  std::vector<ScriptWrite> even;
  for (size_t i = 0; i < probes.size(); ++i) (i % 2 == 0 ? even : odd).push_back(probes[i]);
  const std::vector<std::string> lowers = {
      write_layer(workspace / "even.lsmt", 4 * kTiB, even),
      write_layer(workspace / "odd.lsmt", 4 * kTiB, odd),
  };
  const auto image = open_readable(make_config(workspace.path(), lowers, std::nullopt));
  ASSERT_EQ(image->size(), 4 * kTiB);
  for (const ScriptWrite& probe : probes) {
    SCOPED_TRACE(probe.offset);
    EXPECT_SAME_BYTES(read_range(*image, probe.offset, 4096), probe.data);
  }
  EXPECT_SAME_BYTES(read_range(*image, 4096, 4096), Bytes(4096));
  EXPECT_SAME_BYTES(read_range(*image, 2 * kTiB - 4096, 4096), Bytes(4096));
  EXPECT_SAME_BYTES(read_range(*image, 4 * kTiB - 8192, 4096), Bytes(4096));
}

class EveryKind : public testing::TestWithParam<UpperKind> {
 protected:
  [[nodiscard]] std::string image_of(uint64_t virtual_size, const Bytes& base = {}) const {
    return make_image(workspace_.path(), GetParam(), virtual_size, base);
  }

  Workspace workspace_;
};

class SizeFaultsOfUppers : public EveryKind {};

TEST_P(SizeFaultsOfUppers, DiskAboveTwoTebibytesReadsRightFromTheUpper) {
  const auto probes = read_script(fixture_folder() / "bad" / "big4t.script");
  const std::string config = image_of(4 * kTiB);
  auto image = open_writable(config);
  for (const ScriptWrite& probe : probes) must(image->write(probe.data, probe.offset));
  close_image(image);
  image = open_writable(config);
  for (const ScriptWrite& probe : probes) {
    SCOPED_TRACE(probe.offset);
    EXPECT_SAME_BYTES(read_range(*image, probe.offset, 4096), probe.data);
  }
  close_image(image);
  must(seal_image(posix_file_system(), config));
  image = open_readable(config);
  for (const ScriptWrite& probe : probes) {
    SCOPED_TRACE(probe.offset);
    EXPECT_SAME_BYTES(read_range(*image, probe.offset, 4096), probe.data);
  }
}

// Longer than an index entry's 14 bits of sectors can say.
TEST_P(SizeFaultsOfUppers, RequestsAboveAnEntrysLengthAreWhole) {
  constexpr uint64_t kDiskSize = 48 * kMiB;
  FlatDisk disk(random_bytes(4, kDiskSize));
  const std::string config = image_of(kDiskSize, disk.bytes());
  auto image = open_writable(config);
  EXPECT_SAME_BYTES(read_range(*image, 0, 32 * kMiB), random_bytes(4, 32 * kMiB));

  const Bytes small = random_bytes(5, 8 * kMiB);
  const Bytes large = random_bytes(6, 32 * kMiB);
  must(image->write(small, 40 * kMiB - 1));
  disk.write(40 * kMiB - 1, small);
  must(image->write(large, 4096));
  disk.write(4096, large);
  must(image->trim(12 * kMiB, 16 * kMiB));
  disk.zero(12 * kMiB, 16 * kMiB);
  EXPECT_SAME_BYTES(read_range(*image, 0, 32 * kMiB),
                    Bytes(disk.bytes().begin(), disk.bytes().begin() + 32 * kMiB));
  image.reset();  // as if killed
  image = open_writable(config);
  EXPECT_SAME_BYTES(read_disk(*image), disk.bytes());
}

TEST_P(SizeFaultsOfUppers, WritesPastTheEndAreRefused) {
  constexpr uint64_t kDiskSize = kMiB;
  const std::string config = image_of(kDiskSize);
  auto image = open_writable(config);
  const Bytes data = random_bytes(1, 4096);
  for (const uint64_t offset : {kDiskSize, kDiskSize - 512, kTiB, UINT64_MAX - 511}) {
    SCOPED_TRACE(offset);
    EXPECT_EQ(error_of(image->write(data, offset)).code, ENOSPC);
    EXPECT_EQ(error_of(image->zero(offset, 4096)).code, ENOSPC);
    EXPECT_EQ(error_of(image->trim(offset, 4096)).code, ENOSPC);
    Bytes out(4096);
    EXPECT_EQ(error_of(image->read(out, offset)).code, EINVAL);
  }
  EXPECT_SAME_BYTES(read_disk(*image), Bytes(kDiskSize));
  must(image->write(data, kDiskSize - 4096));
  close_image(image);
  image = open_writable(config);
  EXPECT_EQ(image->size(), kDiskSize);
  EXPECT_SAME_BYTES(read_range(*image, kDiskSize - 4096, 4096), data);
}

TEST_P(SizeFaultsOfUppers, SizeZeroTakesTheSizeOfTheLowers) {
  FlatDisk disk(random_bytes(4, kMiB));
  const std::string config = image_of(0, disk.bytes());
  auto image = open_writable(config);
  ASSERT_EQ(image->size(), kMiB);
  EXPECT_SAME_BYTES(read_disk(*image), disk.bytes());
  const Bytes data = random_bytes(5, 5000);
  must(image->write(data, kMiB - 5000));
  disk.write(kMiB - 5000, data);
  close_image(image);
  image = open_writable(config);
  ASSERT_EQ(image->size(), kMiB);
  EXPECT_SAME_BYTES(read_disk(*image), disk.bytes());
  image.reset();

  must(seal_image(posix_file_system(), config));
  EXPECT_EQ(read_sealed_layer(workspace_ / "writable_data").virtual_size, kMiB);
  EXPECT_SAME_BYTES(read_disk(*open_readable(config)), disk.bytes());
}

TEST_P(SizeFaultsOfUppers, SizeLargerThanTheLowersIsKeptBySealing) {
  FlatDisk disk(random_bytes(4, kMiB));
  const std::string config = image_of(2 * kMiB, disk.bytes());
  auto image = open_writable(config);
  ASSERT_EQ(image->size(), 2 * kMiB);
  const Bytes data = random_bytes(5, 4096);
  must(image->write(data, 2 * kMiB - 4096));
  close_image(image);
  must(seal_image(posix_file_system(), config));
  image = open_readable(config);
  ASSERT_EQ(image->size(), 2 * kMiB);
  EXPECT_SAME_BYTES(read_range(*image, 0, kMiB), disk.bytes());
  EXPECT_SAME_BYTES(read_range(*image, kMiB, kMiB - 4096), Bytes(kMiB - 4096));
  EXPECT_SAME_BYTES(read_range(*image, 2 * kMiB - 4096, 4096), data);
}

TEST_P(SizeFaultsOfUppers, SizeSmallerThanTheLowersHidesWhatIsPastIt) {
  const std::string config = image_of(kMiB - 512, random_bytes(4, 2 * kMiB));
  const auto image = open_writable(config);
  ASSERT_EQ(image->size(), kMiB - 512);
  EXPECT_SAME_BYTES(read_disk(*image), random_bytes(4, kMiB - 512));
}

TEST_P(SizeFaultsOfUppers, SizeZeroWithoutLowersIsAnEmptyDisk) {
  const std::string config = image_of(0);
  auto image = open_writable(config);
  EXPECT_EQ(image->size(), 0U);
  EXPECT_EQ(error_of(image->write(Bytes(1), 0)).code, ENOSPC);
  must(image->write({}, 0));
  must(image->flush());
  close_image(image);
  must(seal_image(posix_file_system(), config));
  EXPECT_EQ(open_readable(config)->size(), 0U);
}

// Smaller than a block of the host: requests of any alignment are served.
TEST_P(SizeFaultsOfUppers, TinyDiskIsServed) {
  const std::string config = image_of(512);
  auto image = open_writable(config);
  const Bytes data = random_bytes(5, 3);
  must(image->write(data, 509));
  close_image(image);
  image = open_writable(config);
  EXPECT_SAME_BYTES(read_range(*image, 509, 3), data);
  EXPECT_SAME_BYTES(read_range(*image, 0, 509), Bytes(509));
}

INSTANTIATE_TEST_SUITE_P(Kinds, SizeFaultsOfUppers,
                         testing::Values(UpperKind::append, UpperKind::sparse),
                         [](const auto& kind) { return name_of(kind.param); });

TEST(SizeFaults, TopLowerOfSizeZeroHidesNoSizeBelow) {
  const Workspace workspace;
  const Bytes bottom = random_bytes(1, kMiB);
  make_layer(workspace / "bottom.lsmt", bottom);
  write_layer(workspace / "top.lsmt", 0, {});
  const auto image =
      open_readable(make_config(workspace.path(), {"bottom.lsmt", "top.lsmt"}, std::nullopt));
  EXPECT_SAME_BYTES(read_disk(*image), bottom);
}

TEST(SizeFaults, LowersOfSizeZeroAreAnEmptyDisk) {
  const Workspace workspace;
  write_layer(workspace / "a.lsmt", 0, {});
  write_layer(workspace / "b.lsmt", 0, {});
  const auto image =
      open_readable(make_config(workspace.path(), {"a.lsmt", "b.lsmt"}, std::nullopt));
  EXPECT_EQ(image->size(), 0U);
  must(image->read({}, 0));
}

TEST(SizeFaults, TopmostSizeCountsEvenWhenItIsTheSmaller) {
  const Workspace workspace;
  make_layer(workspace / "bottom.lsmt", random_bytes(1, 2 * kMiB));
  write_layer(workspace / "top.lsmt", kMiB, {});
  const auto image =
      open_readable(make_config(workspace.path(), {"bottom.lsmt", "top.lsmt"}, std::nullopt));
  EXPECT_SAME_BYTES(read_disk(*image), random_bytes(1, kMiB));
}

}  // namespace
}  // namespace obd::interop
