#include "core/index/live_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <utility>
#include <vector>

#include "core/format/lsmt.h"
#include "test/support/random.h"
#include "test/unit/extent_model.h"

namespace obd::test {
namespace {

constexpr uint64_t kDefaultSeed = 0x1DE0;
// Memory that an index may hold whatever it contains: spare leaves, and arrays that once were in
// use (some hundredth of what the leaves took then).
constexpr size_t kMemoryAllowance = 192 * 1024;

uint64_t seed_of(uint64_t iteration) {
  return number_from_environment("OBD_TEST_SEED", kDefaultSeed) + iteration;
}

Extent data(uint64_t logical, uint64_t length, uint64_t physical) {
  return {Sectors(logical), Sectors(length), Sectors(physical), ExtentKind::data, kUpperLayer};
}

Extent zero(uint64_t logical, uint64_t length) {
  return {Sectors(logical), Sectors(length), Sectors(0), ExtentKind::zero, kUpperLayer};
}

void put(LiveIndex& index, const Extent& extent) {
  index.reserve(1);
  index.insert(extent);
}

std::vector<Extent> all_of(const LiveIndex& index) {
  return find_all(index, Sectors(0), lsmt::kAddressableEnd, 3);
}

TEST(LiveIndex, EmptyFindsNothing) {
  const LiveIndex index;
  std::array<Extent, 4> out;
  EXPECT_EQ(index.find(Sectors(0), lsmt::kAddressableEnd, out), 0u);
  EXPECT_TRUE(index.is_all(ExtentKind::hole, Sectors(0), lsmt::kAddressableEnd));
  EXPECT_FALSE(index.is_all(ExtentKind::zero, Sectors(0), Sectors(1)));
  EXPECT_EQ(index.extent_count(), 0u);
}

TEST(LiveIndex, SplitsAnExtentAroundAnother) {
  LiveIndex index;
  put(index, data(100, 100, 1000));
  put(index, data(140, 20, 5000));
  EXPECT_EQ(all_of(index),
            (std::vector{data(100, 40, 1000), data(140, 20, 5000), data(160, 40, 1060)}));
  EXPECT_EQ(index.data_sectors(), Sectors(100));
  put(index, zero(140, 20));
  EXPECT_EQ(all_of(index), (std::vector{data(100, 40, 1000), zero(140, 20), data(160, 40, 1060)}));
  EXPECT_EQ(index.data_sectors(), Sectors(80));
  EXPECT_EQ(index.zero_sectors(), Sectors(20));
  EXPECT_TRUE(index.is_all(ExtentKind::zero, Sectors(140), Sectors(160)));
  EXPECT_FALSE(index.is_all(ExtentKind::zero, Sectors(139), Sectors(160)));
  EXPECT_FALSE(index.is_all(ExtentKind::zero, Sectors(140), Sectors(161)));
  EXPECT_FALSE(index.is_all(ExtentKind::hole, Sectors(0), Sectors(101)));
}

TEST(LiveIndex, TrimsAndErasesWhatItCovers) {
  LiveIndex index;
  for (uint64_t i = 0; i < 10; ++i) put(index, data(i * 20, 10, 1000 + i * 100));
  put(index, data(5, 180, 9000));
  EXPECT_EQ(all_of(index), (std::vector{data(0, 5, 1000), data(5, 180, 9000), data(185, 5, 1905)}));
}

TEST(LiveIndex, JoinsWhatContinues) {
  LiveIndex index;
  put(index, data(10, 10, 110));
  put(index, data(30, 10, 130));
  put(index, data(20, 10, 120));  // closes the gap
  EXPECT_EQ(all_of(index), (std::vector{data(10, 30, 110)}));
  put(index, data(5, 5, 105));   // in front
  put(index, data(40, 5, 140));  // behind
  EXPECT_EQ(all_of(index), (std::vector{data(5, 40, 105)}));
  put(index, data(20, 10, 120));  // the same once more
  EXPECT_EQ(all_of(index), (std::vector{data(5, 40, 105)}));
  put(index, data(20, 10, 500));
  EXPECT_EQ(index.extent_count(), 3u);
  put(index, data(20, 10, 120));  // the same range on both sides
  EXPECT_EQ(all_of(index), (std::vector{data(5, 40, 105)}));
  put(index, data(40, 5, 600));
  put(index, data(40, 5, 140));  // on one side
  put(index, data(5, 5, 700));
  put(index, data(5, 5, 105));  // on the other
  EXPECT_EQ(all_of(index), (std::vector{data(5, 40, 105)}));
  put(index, zero(50, 10));
  put(index, zero(45, 5));
  EXPECT_EQ(all_of(index), (std::vector{data(5, 40, 105), zero(45, 15)}));
  put(index, data(60, 5, 0));  // a zero extent does not go on in data
  EXPECT_EQ(index.extent_count(), 3u);
}

TEST(LiveIndex, DoesNotJoinAcrossAPhysicalGapOrPastTheLongestLength) {
  LiveIndex index;
  put(index, data(0, 10, 100));
  put(index, data(10, 10, 111));
  EXPECT_EQ(index.extent_count(), 2u);

  const uint64_t longest = lsmt::kMaxLength.count();
  put(index, data(1000, longest - 1, 1000));
  put(index, data(1000 + longest - 1, 1, 1000 + longest - 1));
  EXPECT_EQ(index.extent_count(), 3u);
  put(index, data(1000 + longest, 1, 1000 + longest));
  EXPECT_EQ(index.extent_count(), 4u);
  put(index, zero(100'000, longest));
  put(index, zero(100'000 + longest, longest));
  EXPECT_EQ(index.extent_count(), 6u);
  EXPECT_TRUE(index.is_all(ExtentKind::zero, Sectors(100'000), Sectors(100'000 + 2 * longest)));
}

TEST(LiveIndex, ReachesTheEndOfTheAddresses) {
  LiveIndex index;
  const uint64_t end = lsmt::kAddressableEnd.count();
  const uint64_t longest = lsmt::kMaxLength.count();
  const uint64_t far = lsmt::kMaxPhysical.count() - longest;
  put(index, data(end - longest, longest, far));
  put(index, zero(end - 1, 1));
  put(index, data(0, 1, 8));
  EXPECT_EQ(all_of(index),
            (std::vector{data(0, 1, 8), data(end - longest, longest - 1, far), zero(end - 1, 1)}));
  std::array<Extent, 4> out;
  const Sectors beyond{uint64_t{1} << 54};
  EXPECT_EQ(index.find(Sectors(end - 1), beyond, out), 1u);
  EXPECT_EQ(out[0], zero(end - 1, 1));
  EXPECT_EQ(index.find(Sectors(end), beyond, out), 0u);
  EXPECT_EQ(index.find(beyond, beyond + Sectors(1), out), 0u);
  EXPECT_TRUE(index.is_all(ExtentKind::hole, Sectors(end), beyond));
  EXPECT_FALSE(index.is_all(ExtentKind::zero, Sectors(end - 1), Sectors(end + 1)));
}

TEST(LiveIndex, EmptyQuestions) {
  LiveIndex index;
  put(index, data(0, 10, 8));
  std::array<Extent, 1> out;
  EXPECT_EQ(index.find(Sectors(5), Sectors(5), out), 0u);
  EXPECT_EQ(index.find(Sectors(6), Sectors(5), out), 0u);
  EXPECT_EQ(index.find(Sectors(0), Sectors(10), {}), 0u);
  EXPECT_TRUE(index.is_all(ExtentKind::zero, Sectors(5), Sectors(5)));
}

TEST(LiveIndex, Moves) {
  LiveIndex index;
  put(index, data(0, 10, 8));
  LiveIndex other = std::move(index);
  EXPECT_EQ(all_of(other), (std::vector{data(0, 10, 8)}));
  index = LiveIndex();
  EXPECT_EQ(index.extent_count(), 0u);
  put(index, data(5, 1, 9));
  other = std::move(index);
  EXPECT_EQ(all_of(other), (std::vector{data(5, 1, 9)}));
  EXPECT_EQ(other.data_sectors(), Sectors(1));
}

// How a random writer picks its ranges.
enum class Pattern { scattered, tiny, ascending, descending, two_streams, covering, mixed };
constexpr std::array kPatterns = {Pattern::scattered,  Pattern::tiny,        Pattern::ascending,
                                  Pattern::descending, Pattern::two_streams, Pattern::covering};

// How it picks the place of the bytes.
enum class Placement { log, in_place, anywhere };

class RandomWriter {
 public:
  RandomWriter(Random& random, const FlatModel& model)
      : random_(random),
        model_(model),
        longest_(std::min(model.cell_count() / 2, lsmt::kMaxLength.count() / model.unit().count())),
        placement_(static_cast<Placement>(random.below(3))),
        zero_chance_(random.below(2) == 0 ? 0 : random.below(60)) {}

  Extent next(Pattern pattern) {
    if (pattern == Pattern::mixed) {
      if (random_.percent(2)) current_ = kPatterns[random_.below(kPatterns.size())];
      pattern = current_;
    }
    const size_t cells = model_.cell_count();
    size_t length = 1;
    size_t start = 0;
    ++step_;
    switch (pattern) {
      case Pattern::scattered:
        length = random_.between(1, std::min<size_t>(8, longest_));
        start = random_.below(cells);
        break;
      case Pattern::tiny:
        start = random_.below(cells);
        break;
      case Pattern::ascending:
        start = step_ * 2 % cells;
        break;
      case Pattern::descending:
        start = cells - 1 - step_ * 2 % cells;
        break;
      case Pattern::two_streams:
        start = (step_ / 2 + step_ % 2 * (cells / 3)) % cells;
        break;
      case Pattern::covering:
        length = random_.percent(90) ? 1 : random_.between(1, longest_);
        start = random_.below(cells);
        break;
      case Pattern::mixed:
        break;
    }
    length = std::min(length, cells - start);
    return extent(model_.cell_start(start), Sectors(length * model_.unit().count()));
  }

 private:
  Extent extent(Sectors logical, Sectors length) {
    if (random_.percent(zero_chance_)) return zero(logical.count(), length.count());
    Sectors physical;
    switch (placement_) {
      case Placement::log:
        physical = tail_;
        tail_ += length;
        break;
      case Placement::in_place:
        physical = logical + Sectors(8);
        break;
      case Placement::anywhere:
        physical = Sectors(random_.below(uint64_t{1} << 54));
        break;
    }
    return data(logical.count(), length.count(), physical.count());
  }

  Random& random_;
  const FlatModel& model_;
  size_t longest_;  // cells
  Placement placement_;
  uint64_t zero_chance_;
  Pattern current_ = Pattern::tiny;
  size_t step_ = 0;
  Sectors tail_{8};
};

void expect_finds_everywhere(const LiveIndex& index, const FlatModel& model, Random& random,
                             std::span<const Extent> extents) {
  for (int i = 0; i < 20; ++i) {
    const uint64_t sectors = (model.end() - model.base()).count();
    const uint64_t from = random.below(sectors);
    const uint64_t length =
        random.percent(50) ? random.below(20 * model.unit().count()) : random.below(sectors);
    const Sectors begin = model.base() + Sectors(from);
    const Sectors end = begin + Sectors(std::min(length, sectors - from));
    expect_finds(index, extents, begin, end, random.between(1, 5));
    for (const ExtentKind kind : {ExtentKind::hole, ExtentKind::zero, ExtentKind::data}) {
      EXPECT_EQ(index.is_all(kind, begin, end), model.is_all(kind, begin, end));
    }
  }
}

void run_against_flat_model(Pattern pattern, Sectors base, Sectors unit, size_t cells,
                            uint64_t seed) {
  SCOPED_TRACE(testing::Message() << "pattern " << static_cast<int>(pattern) << "; repeat with "
                                  << "OBD_TEST_SEED=" << seed);
  Random random(seed);
  FlatModel model(base, unit, cells);
  RandomWriter writer(random, model);
  LiveIndex index;
  for (int round = 0; round < 12; ++round) {
    // The room reserved must last for the whole round: memory may shrink, but not grow.
    const size_t inserts = random.between(1, random.percent(50) ? 5 : 1500);
    index.reserve(inserts);
    size_t memory = index.memory_bytes();
    for (size_t i = 0; i < inserts; ++i) {
      const Extent extent = writer.next(pattern);
      index.insert(extent);
      model.put(extent);
      ASSERT_LE(index.memory_bytes(), memory);
      ASSERT_EQ(index.data_sectors(), model.data_sectors());
      ASSERT_EQ(index.zero_sectors(), model.zero_sectors());
      memory = index.memory_bytes();
    }
    const std::vector<Extent> extents = expect_shows(index, model);
    for (const Extent& extent : extents) ASSERT_LE(extent.length, lsmt::kMaxLength);
    expect_finds_everywhere(index, model, random, extents);
    index.reserve(1);
    EXPECT_LE(index.memory_bytes(), kMemoryAllowance + 80 * index.extent_count());
    if (testing::Test::HasFailure()) return;
  }
}

class LiveIndexPatterns : public testing::TestWithParam<Pattern> {};

TEST_P(LiveIndexPatterns, ShowWhatAFlatArrayShows) {
  for (uint64_t i = 0; i < scaled(8); ++i) {
    run_against_flat_model(GetParam(), Sectors(0), Sectors(1), 4000, seed_of(i));
  }
}

TEST_P(LiveIndexPatterns, ShowItForLongExtents) {
  for (uint64_t i = 0; i < scaled(4); ++i) {
    run_against_flat_model(GetParam(), Sectors(0), Sectors(1001), 3000, seed_of(i));
  }
}

TEST_P(LiveIndexPatterns, ShowItAtTheEndOfTheAddresses) {
  for (uint64_t i = 0; i < scaled(4); ++i) {
    run_against_flat_model(GetParam(), lsmt::kAddressableEnd - Sectors(21'000), Sectors(7), 3000,
                           seed_of(i));
  }
}

INSTANTIATE_TEST_SUITE_P(All, LiveIndexPatterns,
                         testing::Values(Pattern::scattered, Pattern::tiny, Pattern::ascending,
                                         Pattern::descending, Pattern::two_streams,
                                         Pattern::covering, Pattern::mixed));

// Each kind of insert at and beside the edges and the middles of full leaves.
TEST(LiveIndex, InsertsAtEveryEdgeOfALeaf) {
  constexpr uint64_t kLeaf = 256;
  constexpr uint64_t kExtents = 3 * kLeaf;
  for (uint64_t place = 0; place < kExtents; ++place) {
    const uint64_t in_half = place % (kLeaf / 2);
    if (in_half > 2 && in_half < kLeaf / 2 - 2) continue;
    const uint64_t start = 4 * place;
    const Extent inserts[] = {
        data(start + 1, 1, 77),                     // splits an extent in two
        data(start, 1, 77),                         // cuts one in front
        data(start + 2, 1, 77),                     // cuts one behind
        data(start + 3, 1, 77),                     // fills a gap
        data(start, 3, 77),                         // takes one's place
        zero(start + 1, 2 * place + 1),             // covers many
        zero(start / 2, start - start / 2 + 1),     // the same, downwards
        zero(0, 4 * kExtents),                      // covers all
        data(start + 3, 1, 1000 + 10 * place + 3),  // lengthens one
        data(start + 3, 1, 1000 + 10 * place + 9),  // lengthens the next in front
    };
    for (const Extent& first : inserts) {
      for (const Extent& second : inserts) {
        FlatModel model(Sectors(0), Sectors(1), 4 * kExtents * 2);
        LiveIndex index;
        for (uint64_t i = 0; i < kExtents; ++i) {
          put(index, data(4 * i, 3, 1000 + 10 * i));
          model.put(data(4 * i, 3, 1000 + 10 * i));
        }
        put(index, first);
        model.put(first);
        put(index, second);
        model.put(second);
        expect_shows(index, model);
        ASSERT_FALSE(HasFailure()) << "place " << place << ": " << testing::PrintToString(first)
                                   << " then " << testing::PrintToString(second);
      }
    }
  }
}

TEST(LiveIndex, GivesMemoryBackWhenCovered) {
  LiveIndex index;
  constexpr uint64_t kExtents = 100'000;
  for (uint64_t i = 0; i < kExtents; ++i) put(index, data(2 * i, 1, 8 + i));
  EXPECT_EQ(index.extent_count(), kExtents);
  EXPECT_LE(index.memory_bytes(), kMemoryAllowance + 18 * kExtents);
  index.reserve(20);
  for (uint64_t i = 0; i < 2 * kExtents; i += 10'000) index.insert(zero(i, 10'000));
  EXPECT_EQ(index.zero_sectors(), Sectors(2 * kExtents));
  EXPECT_EQ(index.data_sectors(), Sectors(0));
  EXPECT_LE(index.extent_count(), 20u);
  EXPECT_LE(index.memory_bytes(), kMemoryAllowance);
}

// What leaves the tree in between must not be missing later.
TEST(LiveIndex, KeepsWhatIsReservedWhileItShrinks) {
  constexpr uint64_t kExtents = 10'000;
  LiveIndex index;
  for (uint64_t i = 0; i < kExtents; ++i) put(index, data(2 * i, 1, 8 + i));
  index.reserve(2 + kExtents);
  const size_t memory = index.memory_bytes();
  index.insert(zero(0, 10'000));
  index.insert(zero(10'000, 10'000));
  for (uint64_t i = 0; i < kExtents; ++i) index.insert(data(2 * (i * 7919 % kExtents), 1, 8 + i));
  EXPECT_EQ(index.memory_bytes(), memory);
  EXPECT_EQ(index.data_sectors(), Sectors(kExtents));
}

// A great deal reserved and not used is given back by the next call.
TEST(LiveIndex, GivesUnusedReservationsBack) {
  LiveIndex index;
  index.reserve(100'000);
  EXPECT_GT(index.memory_bytes(), size_t{4} << 20);
  index.reserve(1);
  EXPECT_LE(index.memory_bytes(), kMemoryAllowance);
}

// Disjoint extents by their first sector, joined with no regard to length.
class MapModel {
 public:
  void put(const Extent& extent) {
    auto next = extents_.lower_bound(extent.logical);
    if (next != extents_.begin()) {
      Extent& before = std::prev(next)->second;
      if (before.end() > extent.end()) {
        extents_.emplace(extent.end(), before.clipped(extent.end(), before.end()));
      }
      if (before.end() > extent.logical) before = before.clipped(before.logical, extent.logical);
    }
    next = extents_.lower_bound(extent.logical);
    while (next != extents_.end() && next->first < extent.end()) {
      const Extent covered = next->second;
      next = extents_.erase(next);
      if (covered.end() > extent.end()) {
        extents_.emplace(extent.end(), covered.clipped(extent.end(), covered.end()));
      }
    }
    extents_.emplace(extent.logical, extent);
  }
  [[nodiscard]] std::vector<Extent> extents() const {
    std::vector<Extent> all;
    for (const auto& [logical, extent] : extents_) all.push_back(extent);
    return all;
  }

 private:
  std::map<Sectors, Extent> extents_;
};

std::vector<Extent> joined(const std::vector<Extent>& extents) {
  std::vector<Extent> result;
  for (const Extent& extent : extents) {
    if (!result.empty()) {
      Extent& last = result.back();
      const bool continues =
          last.end() == extent.logical && last.kind == extent.kind &&
          (last.kind == ExtentKind::zero || last.physical + last.length == extent.physical);
      if (continues) {
        last.length += extent.length;
        continue;
      }
    }
    result.push_back(extent);
  }
  return result;
}

TEST(LiveIndex, HoldsManyExtentsFarApart) {
  const uint64_t seed = seed_of(0);
  SCOPED_TRACE(testing::Message() << "repeat with OBD_TEST_SEED=" << seed);
  Random random(seed);
  LiveIndex index;
  MapModel model;
  constexpr size_t kInserts = 250'000;
  std::vector<uint64_t> starts;
  for (size_t i = 0; i < kInserts; ++i) {
    const uint64_t length = random.between(1, random.percent(5) ? 16'000 : 64);
    uint64_t start = random.below(lsmt::kAddressableEnd.count() - length);
    if (!starts.empty() && random.percent(20)) {  // near an earlier one
      start = std::min(starts[random.below(starts.size())] + random.below(100),
                       lsmt::kAddressableEnd.count() - length);
    }
    starts.push_back(start);
    const Extent extent =
        random.percent(20) ? zero(start, length) : data(start, length, start % 1'000'003 + 8);
    put(index, extent);
    model.put(extent);
  }
  EXPECT_GT(index.extent_count(), 200'000u);
  EXPECT_LE(index.memory_bytes(), kMemoryAllowance + 26 * index.extent_count());
  const std::vector<Extent> found = find_all(index, Sectors(0), lsmt::kAddressableEnd, 1000);
  EXPECT_EQ(found.size(), index.extent_count());
  EXPECT_EQ(joined(found), joined(model.extents()));
}

}  // namespace
}  // namespace obd::test
