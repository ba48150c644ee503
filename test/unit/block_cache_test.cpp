#include "core/zfile/block_cache.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <latch>
#include <thread>
#include <vector>

#include "test/support/random.h"
#include "test/support/seeded.h"

namespace obd {
namespace {

constexpr size_t kBlock = 4096;

BlockCache::Fill filling_with(uint64_t value, std::atomic<int>* calls = nullptr) {
  return [value, calls](std::span<std::byte> out) -> Result<void> {
    if (calls != nullptr) ++*calls;
    std::memset(out.data(), static_cast<int>(value % 251), out.size());
    return {};
  };
}

TEST(BlockCache, KeepsWhatWasFilled) {
  BlockCache cache(1 << 20);
  std::atomic<int> calls = 0;
  const BlockCache::Key key{cache.new_blob(), 7};
  EXPECT_EQ(cache.find(key), nullptr);
  for (int i = 0; i < 3; ++i) {
    const auto block = cache.load(key, kBlock, filling_with(9, &calls)).value();
    EXPECT_EQ(block[0], std::byte{9});
    EXPECT_EQ(block[kBlock - 1], std::byte{9});
  }
  EXPECT_EQ(calls, 1);
  EXPECT_NE(cache.find(key), nullptr);
  EXPECT_EQ(cache.find({key.blob, 8}), nullptr);
  EXPECT_EQ(cache.find({cache.new_blob(), 7}), nullptr);
  EXPECT_EQ(cache.stats().misses, 1U);
  EXPECT_EQ(cache.stats().hits, 3U);
}

TEST(BlockCache, StaysWithinItsBound) {
  for (const uint64_t capacity :
       {uint64_t{1}, uint64_t{10000}, uint64_t{1} << 20, uint64_t{9} << 20}) {
    BlockCache cache(capacity);
    test::Random random(capacity);
    for (uint64_t i = 0; i < 4000; ++i) {
      const size_t size = size_t{512} << random.below(6);
      const uint64_t value = random.below(6) == 0 ? i / 2 : i;
      ASSERT_TRUE(cache.load({size, value}, size, filling_with(value)));
      ASSERT_LE(cache.stats().bytes, capacity);
    }
    if (capacity > 100000) {
      EXPECT_GT(cache.stats().bytes, capacity / 2);
    }
  }
}

TEST(BlockCache, EvictsWhatWasNotUsedForLongest) {
  BlockCache cache(4 * (kBlock + 256));
  for (uint64_t i = 0; i < 4; ++i) ASSERT_TRUE(cache.load({0, i}, kBlock, filling_with(i)));
  EXPECT_NE(cache.find({0, 0}), nullptr);
  ASSERT_TRUE(cache.load({0, 4}, kBlock, filling_with(4)));
  EXPECT_NE(cache.find({0, 0}), nullptr);
  EXPECT_EQ(cache.find({0, 1}), nullptr);
  EXPECT_NE(cache.find({0, 2}), nullptr);
}

TEST(BlockCache, EvictedBlocksLiveOnForThoseWhoHaveThem) {
  BlockCache cache(2 * (kBlock + 256));
  const auto block = cache.load({0, 0}, kBlock, filling_with(77)).value();
  for (uint64_t i = 1; i < 50; ++i) ASSERT_TRUE(cache.load({0, i}, kBlock, filling_with(i)));
  EXPECT_EQ(cache.find({0, 0}), nullptr);
  EXPECT_EQ(block[kBlock - 1], std::byte{77});
}

TEST(BlockCache, BlockLargerThanTheCacheIsServedAndNotKept) {
  BlockCache cache(kBlock);
  EXPECT_TRUE(cache.load({0, 0}, kBlock, filling_with(1)));
  EXPECT_EQ(cache.stats().bytes, 0U);
}

TEST(BlockCache, WithoutCapacityNothingIsKept) {
  BlockCache cache(0);
  EXPECT_FALSE(cache.keeps_blocks());
  std::atomic<int> calls = 0;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(cache.load({0, 0}, kBlock, filling_with(5, &calls)).value()[0], std::byte{5});
  }
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(cache.find({0, 0}), nullptr);
}

// All start together, and the one that fills waits until the others had time to arrive.
TEST(BlockCache, ManyReadersFillABlockOnce) {
  constexpr size_t kThreads = 8;
  BlockCache cache(1 << 20);
  std::latch start(kThreads);
  std::atomic<int> calls = 0;
  test::run_threads(kThreads, [&](size_t) {
    start.arrive_and_wait();
    const auto block = cache.load({0, 0}, kBlock, [&](std::span<std::byte> out) -> Result<void> {
      ++calls;
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      std::memset(out.data(), 3, out.size());
      return {};
    });
    test::require(block.has_value() && (*block)[kBlock - 1] == std::byte{3}, "wrong content");
  });
  EXPECT_EQ(calls, 1);
}

TEST(BlockCache, ErrorsGoToAllWhoWaitAndAreNotKept) {
  constexpr size_t kThreads = 4;
  BlockCache cache(1 << 20);
  std::latch start(kThreads);
  std::atomic<int> calls = 0;
  std::atomic<int> failures = 0;
  test::run_threads(kThreads, [&](size_t) {
    start.arrive_and_wait();
    const auto block = cache.load({0, 0}, kBlock, [&](std::span<std::byte>) -> Result<void> {
      ++calls;
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      return fail(EBADMSG, "damaged");
    });
    if (!block && block.error().message == "damaged") ++failures;
  });
  EXPECT_EQ(failures, static_cast<int>(kThreads));
  EXPECT_LT(calls, static_cast<int>(kThreads));
  EXPECT_EQ(cache.load({0, 0}, kBlock, filling_with(1)).value()[0], std::byte{1});
}

TEST(BlockCache, FillThatRunsOutOfMemoryIsAnErrorForAll) {
  BlockCache cache(1 << 20);
  const auto block = cache.load(
      {0, 0}, kBlock, [](std::span<std::byte>) -> Result<void> { throw std::bad_alloc(); });
  ASSERT_FALSE(block);
  EXPECT_EQ(block.error().code, ENOMEM);
  EXPECT_TRUE(cache.load({0, 0}, kBlock, filling_with(1)));
}

// Threads, evictions and loads all at once: every block has the content of its key.
TEST(BlockCache, HandsOutTheRightBlocksUnderPressure) {
  BlockCache cache(20 * (kBlock + 256));
  test::run_threads(4, [&](size_t thread) {
    test::Random random(thread);
    for (int i = 0; i < 5000; ++i) {
      const uint64_t number = random.below(60);
      BlockCache::Block block = cache.find({0, number});
      if (!block) block = cache.load({0, number}, kBlock, filling_with(number)).value();
      test::require(block[0] == static_cast<std::byte>(number % 251) &&
                        block[kBlock - 1] == static_cast<std::byte>(number % 251),
                    "block of another key");
    }
  });
  EXPECT_LE(cache.stats().bytes, 20 * (kBlock + 256));
}

}  // namespace
}  // namespace obd
