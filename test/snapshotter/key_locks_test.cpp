#include "tools/snapshotter/key_locks.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace obd::snapshotter {
namespace {

TEST(KeyLocks, KeepOneNamesHoldersApart) {
  KeyLocks locks;
  int counter = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 1000; ++j) {
        const auto lock = locks.lock("a");
        ++counter;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counter, 4000);
}

TEST(KeyLocks, LetOtherNamesPass) {
  KeyLocks locks;
  const auto a = locks.lock("a");
  std::thread([&] { const auto b = locks.lock("b"); }).join();
}

TEST(KeyLocks, TwoInAnyOrderDoNotBlockEachOther) {
  KeyLocks locks;
  std::atomic<int> rounds = 0;
  const auto work = [&](const std::string& first, const std::string& second) {
    for (int i = 0; i < 2000; ++i) {
      const auto both = locks.lock_two(first, second);
      ++rounds;
    }
  };
  std::thread one(work, "a", "b");
  std::thread two(work, "b", "a");
  std::thread three(work, "a", "a");
  // No name stands for another one.
  const std::string odd = std::string(1, '\0') + "a";
  std::thread four(work, odd, "a");
  for (std::thread* thread : {&one, &two, &three, &four}) thread->join();
  EXPECT_EQ(rounds, 8000);
}

}  // namespace
}  // namespace obd::snapshotter
