#include "core/layer/stale_ranges.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace obd {
namespace {

SectorRange range(uint64_t from, uint64_t to) { return {Sectors(from), Sectors(to)}; }

TEST(StaleRanges, WaitForTheirRecordToBecomeStable) {
  StaleRanges stale;
  stale.add(range(0, 8), 1);
  stale.add(range(100, 108), 2);
  EXPECT_FALSE(stale.has_ready());
  stale.became_stable(1);
  ASSERT_TRUE(stale.has_ready());
  const auto taken = stale.take_ready(10);
  ASSERT_EQ(taken.size(), 1U);
  EXPECT_EQ(taken[0].from, Sectors(0));
  EXPECT_EQ(taken[0].to, Sectors(8));
  EXPECT_FALSE(stale.has_ready());
}

TEST(StaleRanges, AJoinedRangeWaitsForItsNewestRecord) {
  StaleRanges stale;
  stale.add(range(0, 8), 1);
  stale.add(range(8, 16), 2);
  stale.became_stable(1);
  EXPECT_FALSE(stale.has_ready());
  stale.became_stable(2);
  EXPECT_EQ(stale.take_ready(10).size(), 1U);
}

TEST(StaleRanges, TakesNoMoreThanAskedFor) {
  StaleRanges stale;
  for (uint64_t i = 0; i < 10; ++i) stale.add(range(100 * i, 100 * i + 8), i + 1);
  stale.became_stable(10);
  EXPECT_EQ(stale.take_ready(4).size(), 4U);
  EXPECT_TRUE(stale.has_ready());
  EXPECT_EQ(stale.take_ready(100).size(), 6U);
  EXPECT_FALSE(stale.has_ready());
}

TEST(StaleRanges, WhatIsPutBackIsReadyAgain) {
  StaleRanges stale;
  stale.put_back(range(4, 8));
  ASSERT_TRUE(stale.has_ready());
  EXPECT_EQ(stale.take_ready(1)[0].from, Sectors(4));
}

TEST(StaleRanges, MemoryIsBoundedAndNothingIsForgotten) {
  constexpr uint64_t kAdded = 3 * StaleRanges::kMaxRanges;
  StaleRanges stale;
  for (uint64_t i = 0; i < kAdded; ++i) stale.add(range(100 * i, 100 * i + 8), i + 1);
  stale.became_stable(kAdded);
  const auto taken = stale.take_ready(kAdded);
  EXPECT_EQ(taken.size(), StaleRanges::kMaxRanges);
  for (uint64_t i = 0; i < kAdded; ++i) {
    const bool covered = std::any_of(taken.begin(), taken.end(), [&](const SectorRange& r) {
      return r.from <= Sectors(100 * i) && Sectors(100 * i + 8) <= r.to;
    });
    ASSERT_TRUE(covered) << "range " << i;
  }
}

}  // namespace
}  // namespace obd
