// What happens when there is no memory: the block cache's promise to those who wait for a block.

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <new>
#include <thread>
#include <vector>

#include "core/zfile/block_cache.h"

namespace {

// How many allocations of this thread still succeed; -1: all.
thread_local int allocations_left = -1;

class LimitedMemory {
 public:
  explicit LimitedMemory(int allocations) { allocations_left = allocations; }
  ~LimitedMemory() { allocations_left = -1; }
  LimitedMemory(const LimitedMemory&) = delete;
  LimitedMemory& operator=(const LimitedMemory&) = delete;
};

}  // namespace

// Not inlined: the compiler would take malloc() and delete for a mismatched pair.
[[gnu::noinline]] void* operator new(size_t size) {
  if (allocations_left == 0) throw std::bad_alloc();
  if (allocations_left > 0) --allocations_left;
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace obd {
namespace {

using namespace std::chrono_literals;

constexpr size_t kBlock = 4096;
constexpr BlockCache::Key kKey{1, 1};

// One loads a block with so little memory, while others wait for it. Returns how it ended for the
// one; the others must come to an end, whatever it is.
Result<BlockCache::Block> load_while_others_wait(int allocations) {
  BlockCache cache(1 << 20);
  std::atomic<bool> begun = false;
  const BlockCache::Fill fill = [&](std::span<std::byte>) -> Result<void> {
    begun = true;
    // The others need time to come to waiting; what is wrong only shows when they do.
    std::this_thread::sleep_for(20ms);
    const std::vector<std::byte> work(kBlock);
    return fail(EBADMSG, "a sentence that is too long to be kept without memory: {}", work.size());
  };
  auto one = std::async(std::launch::async, [&] {
    const LimitedMemory limit(allocations);
    auto loaded = cache.load(kKey, kBlock, fill);
    begun = true;
    return loaded;
  });
  while (!begun) std::this_thread::yield();
  std::vector<std::future<bool>> others;
  for (int i = 0; i < 3; ++i) {
    others.push_back(std::async(std::launch::async, [&] {
      const LimitedMemory limit(0);
      return cache.load(kKey, kBlock, fill).has_value();
    }));
  }
  for (auto& other : others) {
    if (other.wait_for(20s) == std::future_status::ready) continue;
    std::fprintf(stderr, "with %d allocations, somebody waits for ever\n", allocations);
    std::_Exit(1);  // whoever waits cannot be joined
  }
  auto result = one.get();
  // Nothing of it is left: the next one loads the block.
  EXPECT_TRUE(cache.load(kKey, kBlock, [](std::span<std::byte>) { return Result<void>(); }));
  return result;
}

TEST(OutOfMemory, WhoeverWaitsForABlockGetsAnOutcome) {
  bool enough = false;
  int refused = 0;
  for (int allocations = 0; allocations < 32 && !enough; ++allocations) {
    const auto loaded = load_while_others_wait(allocations);
    ASSERT_FALSE(loaded);
    enough = loaded.error().code == EBADMSG;
    if (!enough) {
      EXPECT_EQ(loaded.error().code, ENOMEM);
      ++refused;
    }
  }
  EXPECT_TRUE(enough);
  // Each step has failed once: the bookkeeping, the block, the work of filling it, the sentence.
  EXPECT_GE(refused, 4);
}

}  // namespace
}  // namespace obd
