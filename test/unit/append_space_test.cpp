// The space of an append layer's data file, against a model that knows each sector.

#include "core/layer/append_space.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "test/support/random.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

constexpr uint64_t kSectorsPerBlock = kBlockSize / kSectorSize;

const auto kCannotCut = [](Sectors) { return false; };

Sectors allocate(AppendSpace& space, uint64_t logical, uint64_t length) {
  return expect_value(space.allocate(Sectors(logical), Sectors(length), 0, "data"));
}

void track_nothing(AppendSpace& space, size_t region_blocks) {
  space.reset(Sectors(kSectorsPerBlock));
  ASSERT_TRUE(space.track(region_blocks, 0, [](const AppendSpace::AddLive&) {}));
}

void ripen(AppendSpace& space) {
  (void)space.begin_ripening();
  space.end_ripening();
}

TEST(AppendSpace, WithoutTrackingDataGoesToTheEnd) {
  AppendSpace space;
  space.reset(Sectors(8));
  EXPECT_EQ(allocate(space, 0, 8), Sectors(8));
  EXPECT_EQ(allocate(space, 100, 1), Sectors(16));
  // Whole blocks keep their alignment.
  EXPECT_EQ(allocate(space, 8, 16), Sectors(24));
  EXPECT_EQ(space.end(), Sectors(40));
  space.give_back(Sectors(24), Sectors(16), [](Sectors end) { return end == Sectors(24); });
  EXPECT_EQ(space.end(), Sectors(24));
  EXPECT_FALSE(space.begin_ripening());
}

TEST(AppendSpace, DeadBlocksAreUsedAgainOnceTheyAreRipe) {
  AppendSpace space;
  track_nothing(space, 4);
  std::vector<Sectors> places;
  for (uint64_t i = 0; i < 40; ++i) places.push_back(allocate(space, 8 * i, 8));
  const Sectors end = space.end();
  for (const Sectors at : places) space.kill(at, Sectors(8));
  EXPECT_EQ(space.usage().dying, 40 * kBlockSize);
  // Not while readers or an older log may know them.
  EXPECT_GE(allocate(space, 0, 8), end);
  EXPECT_TRUE(space.begin_ripening());
  EXPECT_GE(allocate(space, 8, 8), end);
  space.end_ripening();
  EXPECT_EQ(space.usage().dying, 0U);
  // First what is left of the region at the end.
  for (uint64_t i = 0; i < 4; ++i) (void)allocate(space, 8 * i, 8);
  const Sectors grown = space.end();
  for (uint64_t i = 0; i < 30; ++i) EXPECT_LT(allocate(space, 8 * i, 8), grown);
}

TEST(AppendSpace, ABlockWaitsForTheLastOfItsSectors) {
  AppendSpace space;
  track_nothing(space, 4);
  for (uint64_t i = 0; i < 8; ++i) (void)allocate(space, 2 * i, 1);
  const Sectors at = allocate(space, 100, 1) - Sectors(8);
  for (uint64_t i = 0; i < 7; ++i) space.kill(at + Sectors(i), Sectors(1));
  EXPECT_EQ(space.usage().dying, 0U);
  space.kill(at + Sectors(3), Sectors(1));  // it is dead already
  EXPECT_EQ(space.usage().dying, 0U);
  space.kill(at + Sectors(7), Sectors(1));
  EXPECT_EQ(space.usage().dying, kBlockSize);
}

TEST(AppendSpace, RecordsThatNameTheSameBytesTwiceForbidIt) {
  for (const auto& [from, to] : {std::pair{8, 16}, {9, 10}, {12, 30}, {0, 9}, {15, 17}}) {
    AppendSpace space;
    space.reset(Sectors(64));
    EXPECT_FALSE(space.track(4, 0, [&](const AppendSpace::AddLive& add) {
      add(Sectors(8), Sectors(16));
      add(Sectors(static_cast<uint64_t>(from)), Sectors(static_cast<uint64_t>(to)));
    })) << from;
    EXPECT_FALSE(space.is_tracking());
  }
}

TEST(AppendSpace, OfAHugeFileOnlyWhatIsNamedIsKept) {
  AppendSpace space;
  const Sectors end = Sectors::floor(align_down(kMaxDiskSize, kBlockSize)) - Sectors(1U << 20);
  space.reset(end);
  ASSERT_TRUE(space.track(AppendSpace::kMostRegionBlocks, 0, [&](const AppendSpace::AddLive& add) {
    add(end - Sectors(8), end);
  }));
  EXPECT_EQ(space.usage().held, 2 * kBlockSize);
  ripen(space);
  // From the front, as all of that is free.
  EXPECT_LT(allocate(space, 0, 2048), Sectors(1U << 20));
}

TEST(AppendSpace, ABudgetIsKept) {
  AppendSpace space;
  track_nothing(space, 4);
  const uint64_t budget = 11 * kBlockSize;
  const auto is_full = [&] {
    const auto space_for_one = space.allocate(Sectors(), Sectors(8), budget, "data");
    return !space_for_one && space_for_one.error().code == ENOSPC;
  };
  std::vector<Sectors> places;
  for (uint64_t i = 0; i < 10; ++i) {
    places.push_back(expect_value(space.allocate(Sectors(8 * i), Sectors(8), budget, "data")));
  }
  EXPECT_TRUE(is_full());
  space.kill(places[3], Sectors(8));
  EXPECT_TRUE(is_full());
  ripen(space);
  // Room for one, wherever the host holds it.
  const auto ranges = space.take_for_punching(kBlockSize, kBlockSize, 1 << 20, 100);
  ASSERT_EQ(ranges.size(), 1U);
  space.punched(ranges[0], true);
  (void)expect_value(space.allocate(Sectors(), Sectors(8), budget, "data"));
  EXPECT_TRUE(is_full());
}

TEST(AppendSpace, TheHostIsAskedWhatItHolds) {
  AppendSpace space;
  space.reset(Sectors(8 * 64));
  // It says that it holds more than the one live block.
  ASSERT_TRUE(space.track(4, 64 * kBlockSize, [](const AppendSpace::AddLive& add) {
    add(Sectors(8 * 10), Sectors(8 * 11));
  }));
  EXPECT_FALSE(space.needs_survey());  // before that, nothing is free
  ripen(space);
  ASSERT_TRUE(space.needs_survey());
  // Blocks 0, 10 and 20 to 29.
  const auto next_held = [](Sectors from) -> Result<std::optional<SectorRange>> {
    for (const auto& [first, last] : {std::pair{0, 1}, {10, 11}, {20, 30}}) {
      const Sectors begin(static_cast<uint64_t>(8 * first)), end(static_cast<uint64_t>(8 * last));
      if (from < end) return SectorRange{std::max(from, begin), end};
    }
    return std::nullopt;
  };
  EXPECT_FALSE(expect_value(space.survey(Sectors(), next_held)));
  EXPECT_EQ(space.usage().held, 12 * kBlockSize);
  EXPECT_EQ(space.usage().free, 10 * kBlockSize);
}

// Random allocations, deaths, ripening, punching and cleaning: what is handed out is never live,
// never waiting, and the accounts agree with the model.
class SpaceWalk {
 public:
  explicit SpaceWalk(uint64_t seed) : random_(seed), region_blocks_(random_.between(1, 12)) {
    space_.reset(Sectors(kSectorsPerBlock));
    require(space_.track(region_blocks_, 0, [](const AppendSpace::AddLive&) {}), "no tracking");
    state_.assign(kSectorsPerBlock, live);
  }

  void run() {
    for (int i = 0; i < 600; ++i) {
      const uint64_t kind = random_.below(100);
      if (kind < 55) {
        take();
      } else if (kind < 85) {
        kill();
      } else if (kind < 90) {
        (void)space_.begin_ripening();
        std::ranges::replace(state_, dead, ripening);
      } else if (kind < 95) {
        space_.end_ripening();
        std::ranges::replace(state_, ripening, gone);
      } else {
        punch();
      }
    }
    for (const Range& range : ranges_) space_.kill(range.from, range.length);
    ripen(space_);
    ripen(space_);
    while (true) {
      const auto free = space_.take_for_punching(kBlockSize, kBlockSize, 1 << 20, 10);
      if (free.empty()) break;
      for (const SectorRange& range : free) space_.punched(range, true);
    }
    // The header's block, and the runs that are being filled.
    require(space_.usage().held <= (1 + 2 * region_blocks_) * kBlockSize,
            fmt::format("{} bytes are held for nothing", space_.usage().held));
    require(space_.usage().dying == 0, "something never ripens");
  }

 private:
  enum State : uint8_t { gone, live, dead, ripening };
  struct Range {
    Sectors from, length;
  };

  void take() {
    const Sectors length(random_.percent(60) ? 8 * random_.between(1, 6) : random_.between(1, 30));
    const Sectors logical(random_.percent(60) ? 8 * random_.below(100) : random_.below(800));
    const Sectors at = expect_value(space_.allocate(logical, length, 0, "data"));
    if (state_.size() < (at + length).count()) state_.resize((at + length).count(), gone);
    for (Sectors s = at; s < at + length; s += Sectors(1)) {
      require(state_[s.count()] == gone, fmt::format("sector {} is not free", s.count()));
      state_[s.count()] = live;
    }
    ranges_.push_back({at, length});
  }

  void kill() {
    if (ranges_.empty()) return;
    const size_t which = random_.below(ranges_.size());
    Range& range = ranges_[which];
    const Sectors part(random_.percent(50) ? range.length.count()
                                           : random_.between(1, range.length.count()));
    space_.kill(range.from, part);
    for (Sectors s = range.from; s < range.from + part; s += Sectors(1)) state_[s.count()] = dead;
    range = {range.from + part, range.length - part};
    if (range.length == Sectors()) {
      range = ranges_.back();
      ranges_.pop_back();
    }
  }

  void punch() {
    for (const SectorRange& range :
         space_.take_for_punching(kBlockSize, kBlockSize, 1 << 20, random_.below(4))) {
      for (Sectors s = range.from; s < range.to; s += Sectors(1)) {
        require(s.count() >= state_.size() || state_[s.count()] == gone, "punches what is in use");
      }
      space_.punched(range, random_.percent(80));
    }
  }

  Random random_;
  size_t region_blocks_;
  AppendSpace space_;
  std::vector<State> state_;  // of each sector
  std::vector<Range> ranges_;
};

TEST(AppendSpace, AgreesWithAModel) {
  for_each_seed(200, [](uint64_t seed) { SpaceWalk(seed).run(); });
}

TEST(AppendSpace, WhatWasNeverNamedIsDeadSpace) {
  AppendSpace space;
  track_nothing(space, 4);
  const Sectors at = allocate(space, 0, 8);
  (void)allocate(space, 8, 8);
  space.give_back(at, Sectors(8), kCannotCut);
  EXPECT_EQ(space.usage().dying, kBlockSize);
}

}  // namespace
}  // namespace obd::test
