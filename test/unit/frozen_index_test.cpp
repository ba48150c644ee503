#include "core/index/frozen_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "core/format/lsmt.h"
#include "test/support/random.h"
#include "test/support/seeded.h"
#include "test/unit/extent_model.h"

namespace obd::test {
namespace {

using Layers = std::vector<std::vector<Extent>>;

constexpr uint64_t kDefaultSeed = 0xF120;
constexpr Sectors kLargestDisk = Sectors::floor(kMaxDiskSize);

Extent data(uint64_t logical, uint64_t length, uint64_t physical, LayerNumber layer) {
  return {Sectors(logical), Sectors(length), Sectors(physical), ExtentKind::data, layer};
}

Extent zero(uint64_t logical, uint64_t length, LayerNumber layer) {
  return {Sectors(logical), Sectors(length), Sectors(0), ExtentKind::zero, layer};
}

std::vector<Extent> all_of(const FrozenIndex& index) {
  return find_all(index, Sectors(0), kLargestDisk, 3);
}

TEST(FrozenIndex, EmptyStacks) {
  const Layers stacks[] = {{}, {{}}, {{}, {}, {}}};
  for (const Layers& layers : stacks) {
    const FrozenIndex index = FrozenIndex::merge(layers, Sectors(100));
    std::array<Extent, 2> out;
    EXPECT_EQ(index.find(Sectors(0), Sectors(100), out), 0u);
    EXPECT_EQ(index.extent_count(), 0u);
    EXPECT_TRUE(index.reads_as_zeros(Sectors(0), Sectors(100)));
  }
}

TEST(FrozenIndex, UpperLayersHideLowerOnes) {
  const FrozenIndex index = FrozenIndex::merge(
      {{data(0, 100, 8, 0)}, {data(10, 10, 8, 1), zero(50, 10, 1)}, {data(15, 40, 8, 2)}},
      Sectors(1000));
  EXPECT_EQ(all_of(index), (std::vector{data(0, 10, 8, 0), data(10, 5, 8, 1), data(15, 40, 8, 2),
                                        zero(55, 5, 1), data(60, 40, 68, 0)}));
  EXPECT_EQ(index.data_sectors(), Sectors(95));
  EXPECT_EQ(index.zero_sectors(), Sectors(5));
  EXPECT_TRUE(index.reads_as_zeros(Sectors(55), Sectors(60)));
  EXPECT_FALSE(index.reads_as_zeros(Sectors(54), Sectors(60)));
  EXPECT_FALSE(index.reads_as_zeros(Sectors(55), Sectors(61)));
  EXPECT_TRUE(index.reads_as_zeros(Sectors(100), Sectors(1000)));
}

TEST(FrozenIndex, JoinsWithinALayerOnly) {
  const FrozenIndex index = FrozenIndex::merge(
      {{data(0, 10, 8, 0), data(10, 20, 18, 0), zero(30, 10, 0), zero(40, 20, 0)},
       {zero(60, 1, 1), data(61, 1, 8, 1), data(62, 1, 10, 1)}},
      kLargestDisk);
  EXPECT_EQ(all_of(index), (std::vector{data(0, 30, 8, 0), zero(30, 30, 0), zero(60, 1, 1),
                                        data(61, 1, 8, 1), data(62, 1, 10, 1)}));
}

TEST(FrozenIndex, JoinsAsMuchAsARowHolds) {
  const uint64_t longest = lsmt::kMaxLength.count();
  const FrozenIndex index =
      FrozenIndex::merge({{data(0, longest - 2, 8, 0), data(longest - 2, 2, 6 + longest, 0),
                           data(longest, 1, 8 + longest, 0), zero(longest + 1, longest, 0)}},
                         kLargestDisk);
  EXPECT_EQ(all_of(index), (std::vector{data(0, longest, 8, 0), data(longest, 1, 8 + longest, 0),
                                        zero(longest + 1, longest, 0)}));
}

TEST(FrozenIndex, KeepsZerosOverNothing) {
  const FrozenIndex index = FrozenIndex::merge({{zero(10, 10, 0)}}, Sectors(100));
  EXPECT_EQ(all_of(index), (std::vector{zero(10, 10, 0)}));
}

TEST(FrozenIndex, ClipsToTheDisk) {
  const Layers layers = {{data(0, 50, 8, 0), data(60, 50, 58, 0), data(200, 10, 108, 0)},
                         {zero(90, 20, 1), data(120, 5, 8, 1)}};
  EXPECT_EQ(all_of(FrozenIndex::merge(layers, Sectors(100))),
            (std::vector{data(0, 50, 8, 0), data(60, 30, 58, 0), zero(90, 10, 1)}));
  EXPECT_EQ(all_of(FrozenIndex::merge(layers, Sectors(60))), (std::vector{data(0, 50, 8, 0)}));
  EXPECT_EQ(FrozenIndex::merge(layers, Sectors(0)).extent_count(), 0u);
}

// The last extent that an entry can describe reaches past what others can begin at.
TEST(FrozenIndex, HoldsTheLargestValues) {
  const uint64_t last = lsmt::kAddressableEnd.count() - 1;
  const uint64_t longest = lsmt::kMaxLength.count();
  const uint64_t far = lsmt::kMaxPhysical.count();
  for (const uint64_t length : {uint64_t{1}, longest}) {
    const std::vector extents = {zero(last - 1, 1, 0), data(last, length, far, kMaxLowers - 1)};
    const FrozenIndex index = FrozenIndex::merge({extents}, kLargestDisk);
    // What an entry reaches past the last sector that one can begin at is no part of any disk.
    EXPECT_EQ(all_of(index),
              (std::vector{zero(last - 1, 1, 0), data(last, 1, far, kMaxLowers - 1)}));
    EXPECT_EQ(find_all(index, Sectors(last + 1), kLargestDisk, 2), std::vector<Extent>());
    EXPECT_TRUE(index.reads_as_zeros(Sectors(last + 1), kLargestDisk));
  }
}

// The rest of an extent, behind another that covers its middle, cannot be told by a row.
TEST(FrozenIndex, EndsWhereEntriesCannotBegin) {
  const uint64_t end = lsmt::kAddressableEnd.count();
  const std::vector below = {zero(end - 9, 100, 0)};
  const std::vector above = {data(end - 1, 5, 8, 1)};
  const FrozenIndex index = FrozenIndex::merge({below, above}, kLargestDisk);
  EXPECT_EQ(all_of(index), (std::vector{zero(end - 9, 8, 0), data(end - 1, 1, 8, 1)}));
}

// All extents but one are among the same few sectors of a large disk.
TEST(FrozenIndex, FindsWhatIsCrowded) {
  std::vector<Extent> crowd;
  for (uint64_t i = 0; i < 1000; ++i) crowd.push_back(data(1000 + 3 * i, 2, 8 + 2 * i, 0));
  crowd.push_back(data(uint64_t{1} << 40, 2, 8 + 2000, 0));
  const FrozenIndex index = FrozenIndex::merge({crowd}, kLargestDisk);
  std::array<Extent, 2> out;
  for (const Extent& extent : crowd) {
    ASSERT_EQ(index.find(extent.logical + Sectors(1), extent.logical + Sectors(3), out), 1u);
    EXPECT_EQ(out[0], extent.clipped(extent.logical + Sectors(1), extent.end()));
    EXPECT_TRUE(index.reads_as_zeros(extent.end(), extent.end() + Sectors(1)));
  }
  EXPECT_EQ(index.find(Sectors(0), Sectors(1000), out), 0u);
  EXPECT_EQ(index.find(Sectors(5000), Sectors(uint64_t{1} << 40), out), 0u);
}

TEST(FrozenIndex, EmptyQuestions) {
  const FrozenIndex index = FrozenIndex::merge({{data(0, 10, 8, 0)}}, Sectors(10));
  std::array<Extent, 1> out;
  EXPECT_EQ(index.find(Sectors(5), Sectors(5), out), 0u);
  EXPECT_EQ(index.find(Sectors(6), Sectors(5), out), 0u);
  EXPECT_EQ(index.find(Sectors(0), Sectors(10), {}), 0u);
  EXPECT_TRUE(index.reads_as_zeros(Sectors(5), Sectors(5)));
}

// A layer of random extents, some of which continue the one before.
std::vector<Extent> random_layer(Random& random, const FlatModel& model, LayerNumber layer) {
  const uint64_t gap = random.between(1, random.percent(50) ? 4 : 400);
  const uint64_t longest = std::min<uint64_t>(200, lsmt::kMaxLength.count() / model.unit().count());
  const uint64_t length = random.between(1, random.percent(70) ? 5 : longest);
  const uint64_t zero_chance = random.percent(50) ? 0 : 40;
  const uint64_t unit = model.unit().count();
  std::vector<Extent> extents;
  Sectors tail(8);
  for (size_t cell = random.below(gap + 1); cell < model.cell_count();) {
    const size_t cells = std::min(random.between(1, length), model.cell_count() - cell);
    const uint64_t start = model.cell_start(cell).count();
    extents.push_back(random.percent(zero_chance) ? zero(start, cells * unit, layer)
                                                  : data(start, cells * unit, tail.count(), layer));
    tail += Sectors(cells * unit);
    if (random.percent(30)) tail += Sectors(1);
    cell += cells + (random.percent(40) ? 0 : random.below(gap + 1));
  }
  return extents;
}

std::vector<lsmt::PackedEntry> packed(const std::vector<Extent>& extents) {
  std::vector<lsmt::PackedEntry> entries(extents.size());
  for (size_t i = 0; i < extents.size(); ++i) {
    const bool zeroed = extents[i].kind == ExtentKind::zero;
    const auto bytes = std::as_writable_bytes(std::span(entries).subspan(i, 1));
    lsmt::encode_entry({.offset = extents[i].logical,
                        .length = extents[i].length,
                        .physical = zeroed ? Sectors(8) : extents[i].physical,
                        .zeroed = zeroed},
                       bytes.first<lsmt::kEntrySize>());
  }
  lsmt::decode_entries(entries);
  return entries;
}

TEST(FrozenIndex, MergesTheEntriesOfLayersAsItDoesExtents) {
  for_each_seed(20, [](uint64_t seed) {
    Random random(seed);
    const FlatModel window(Sectors(0), Sectors(1), 2000);
    const Sectors disk_end(random.between(1, 2000));
    Layers layers;
    std::vector<std::vector<lsmt::PackedEntry>> entries;
    for (size_t i = random.between(1, random.percent(20) ? kMaxLowers : 8); i > 0; --i) {
      layers.push_back(random_layer(random, window, static_cast<LayerNumber>(layers.size())));
      entries.push_back(packed(layers.back()));
    }
    const FrozenIndex index = FrozenIndex::merge(entries, disk_end);
    EXPECT_EQ(all_of(index), all_of(FrozenIndex::merge(layers, disk_end)));
    EXPECT_LE(index.data_sectors() + index.zero_sectors(), disk_end);
  });
}

void run_against_flat_model(Sectors base, Sectors unit, size_t cells, size_t layer_count,
                            uint64_t seed) {
  SCOPED_TRACE(testing::Message() << layer_count << " layers; repeat with OBD_TEST_SEED=" << seed);
  Random random(seed);
  // The layers may reach past the end of the disk.
  const FlatModel window(base, unit, cells + cells / 4);
  FlatModel model(base, unit, cells);
  const Sectors disk_end = model.end();
  Layers layers;
  for (size_t i = 0; i < layer_count; ++i) {
    layers.push_back(random.percent(10)
                         ? std::vector<Extent>()
                         : random_layer(random, window, static_cast<LayerNumber>(i)));
    for (const Extent& extent : layers.back()) {
      if (extent.logical < disk_end) model.put(extent.clipped(Sectors(0), disk_end));
    }
  }
  const FrozenIndex index = FrozenIndex::merge(std::move(layers), disk_end);
  const std::vector<Extent> extents = expect_shows(index, model);
  EXPECT_LE(index.memory_bytes(), 256 + 25 * index.extent_count());
  for (size_t i = 1; i < extents.size(); ++i) {
    const Extent& before = extents[i - 1];
    const bool could_join =
        before.end() == extents[i].logical && before.kind == extents[i].kind &&
        before.layer == extents[i].layer && before.length + extents[i].length <= lsmt::kMaxLength &&
        (before.kind == ExtentKind::zero || before.physical + before.length == extents[i].physical);
    EXPECT_FALSE(could_join) << "extents " << i - 1 << " and " << i;
  }
  for (int i = 0; i < 50; ++i) {
    const uint64_t sectors = (disk_end - base).count();
    const uint64_t from = random.below(sectors);
    const uint64_t length =
        random.percent(80) ? random.below(8 * unit.count()) : random.below(sectors);
    const Sectors begin = base + Sectors(from);
    const Sectors end = begin + Sectors(std::min(length, sectors - from));
    expect_finds(index, extents, begin, end, random.between(1, 5));
    EXPECT_EQ(index.reads_as_zeros(begin, end), !model.has_data(begin, end));
  }
}

void run_many(Sectors base, Sectors unit, size_t cells) {
  const uint64_t first_seed = number_from_environment("OBD_TEST_SEED", kDefaultSeed);
  for (const size_t layer_count : {1u, 2u, 3u, 4u, 5u, 7u, 16u, 33u, 100u, 254u, 255u}) {
    for (uint64_t i = 0; i < scaled(4); ++i) {
      run_against_flat_model(base, unit, cells, layer_count, first_seed + i);
      if (testing::Test::HasFailure()) return;
    }
  }
}

TEST(FrozenIndex, ShowsWhatAFlatArrayShows) { run_many(Sectors(0), Sectors(1), 3000); }

TEST(FrozenIndex, ShowsItForLongExtents) { run_many(Sectors(5), Sectors(3001), 1000); }

TEST(FrozenIndex, ShowsItWhereEntriesEnd) {
  run_many(lsmt::kAddressableEnd - Sectors(12'000), Sectors(3), 3000);
}

}  // namespace
}  // namespace obd::test
