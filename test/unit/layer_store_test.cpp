#include "core/layer/layer_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cerrno>

#include "core/layer/layer_writer.h"
#include "test/support/memory_file_system.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSize = 1 << 20;

// A layer with data in each of the given blocks.
void write_layer(FileSystem& fs, const std::string& path, const std::vector<uint64_t>& blocks,
                 Compression compression = Compression::none) {
  LayerOptions options;
  options.virtual_size = kSize;
  options.overwrite = true;
  options.blob = {.compression = compression, .threads = 1};
  const auto writer = expect_value(LayerWriter::create(fs, path, options));
  const std::vector<std::byte> data(kBlockSize, std::byte{7});
  for (const uint64_t block : blocks) {
    expect_ok(writer->append_data(Sectors::floor(block * kBlockSize), data));
  }
  expect_ok(writer->finish());
}

class LayerStores : public ::testing::Test {
 protected:
  LayerStore::Layer open(const std::string& path) { return expect_value(store_.open(fs_, path)); }

  MemoryFileSystem fs_;
  LayerStore store_;
};

// The number of the layer that shows in a block; -1: none.
int layer_at(const FrozenIndex& index, uint64_t block) {
  std::array<Extent, 1> found;
  const Sectors at = Sectors::floor(block * kBlockSize);
  return index.find(at, at + Sectors(1), found) == 0 ? -1 : found[0].layer;
}

TEST_F(LayerStores, OpenALayerOnceForAsLongAsItIsHeld) {
  for (const Compression compression : {Compression::none, Compression::lz4}) {
    write_layer(fs_, "/layer", {1, 3}, compression);
    auto first = open("/layer");
    const uint64_t reads = fs_.count(Operation::read);
    auto second = open("/layer");
    EXPECT_EQ(first, second);
    EXPECT_EQ(fs_.count(Operation::read), reads);
    EXPECT_EQ(store_.stats().layers, 1u);
    first.reset();
    EXPECT_EQ(second.use_count(), 1);
    second.reset();
    EXPECT_EQ(store_.stats().layers, 0u);
    EXPECT_TRUE(open("/layer"));
    EXPECT_GT(fs_.count(Operation::read), reads);
  }
}

TEST_F(LayerStores, TakeAReplacedFileForAnother) {
  write_layer(fs_, "/layer", {1});
  const auto old = open("/layer");
  write_layer(fs_, "/layer", {1, 3});
  const auto fresh = open("/layer");
  EXPECT_EQ(old->extent_count(), 1u);
  EXPECT_EQ(fresh->extent_count(), 2u);
  EXPECT_EQ(store_.stats().layers, 2u);
}

TEST_F(LayerStores, TakeAFileThatWasWrittenToForAnother) {
  write_layer(fs_, "/layer", {1});
  const auto old = open("/layer");
  const auto file = expect_value(fs_.open("/layer", Access::read_write));
  expect_ok(file->write_at(std::array<std::byte, 4>{}, 0));
  const auto damaged = store_.open(fs_, "/layer");
  ASSERT_FALSE(damaged);
  EXPECT_EQ(damaged.error().code, EINVAL);
  EXPECT_THAT(damaged.error().message, HasSubstr("/layer"));
}

TEST_F(LayerStores, KeepHostsApart) {
  MemoryFileSystem other;
  write_layer(fs_, "/layer", {1});
  write_layer(other, "/layer", {1});
  EXPECT_NE(open("/layer"), expect_value(store_.open(other, "/layer")));
}

TEST_F(LayerStores, MergeAStackOnce) {
  write_layer(fs_, "/a", {1, 3});
  write_layer(fs_, "/b", {3, 5});
  const auto a = open("/a");
  const auto b = open("/b");
  auto first = expect_value(store_.merge({a, b}, Sectors::floor(kSize)));
  // No layer reaches as far.
  EXPECT_EQ(first, expect_value(store_.merge({a, b}, Sectors::floor(2 * kSize))));
  // Others have these layers too, whose indexes have been taken by now.
  const auto turned = expect_value(store_.merge({b, a}, Sectors::floor(kSize)));
  const auto cut = expect_value(store_.merge({a, b}, Sectors::floor(5 * kBlockSize)));
  EXPECT_EQ(store_.stats().indexes, 3u);
  const auto shown = [](const FrozenIndex& index) {
    return std::array{layer_at(index, 1), layer_at(index, 3), layer_at(index, 5)};
  };
  EXPECT_EQ(shown(*first), (std::array{0, 1, 1}));
  EXPECT_EQ(shown(*turned), (std::array{1, 1, 0}));
  EXPECT_EQ(shown(*cut), (std::array{0, 1, -1}));
  first.reset();
  EXPECT_EQ(store_.stats().indexes, 2u);
}

TEST_F(LayerStores, KeepTheLayersOfAnIndexOpen) {
  write_layer(fs_, "/a", {1});
  auto a = open("/a");
  const auto index = expect_value(store_.merge({a}, Sectors::floor(kSize)));
  a.reset();
  EXPECT_EQ(store_.stats().layers, 1u);
  EXPECT_EQ(index, expect_value(store_.merge({open("/a")}, Sectors::floor(kSize))));
}

TEST_F(LayerStores, ReadAnIndexAnewWithTheSameChecks) {
  write_layer(fs_, "/a", {1});
  const auto a = open("/a");
  EXPECT_EQ(expect_value(a->take_index()).size(), 1u);
  const auto file = expect_value(fs_.open("/a", Access::read_write));
  expect_ok(file->write_at(std::vector<std::byte>(lsmt::kEntrySize), a->trailer().index_offset));
  const auto index = store_.merge({a}, Sectors::floor(kSize));
  ASSERT_FALSE(index);
  EXPECT_THAT(index.error().message, HasSubstr("/a: index entry 0: length is 0"));
}

TEST_F(LayerStores, AgreeAmongThreads) {
  write_layer(fs_, "/a", {1, 3}, Compression::lz4);
  write_layer(fs_, "/b", {3, 5});
  constexpr size_t kThreads = 4;
  std::array<std::shared_ptr<const FrozenIndex>, kThreads> indexes;
  run_threads(kThreads, [&](size_t thread) {
    for (int round = 0; round < 50; ++round) {
      indexes[thread] = expect_value(
          store_.merge({expect_value(store_.open(fs_, "/a")), expect_value(store_.open(fs_, "/b"))},
                       Sectors::floor(kSize)));
      require(layer_at(*indexes[thread], 3) == 1, "the upper layer shows");
    }
  });
  // Each keeps what it has had last, so at the end all have the same.
  const LayerStore::Stats stats = store_.stats();
  EXPECT_EQ(stats.indexes, 1u);
  EXPECT_EQ(stats.layers, 2u);
  for (auto& index : indexes) EXPECT_EQ(index, indexes[0]);
}

}  // namespace
}  // namespace obd::test
