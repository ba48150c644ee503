#include "core/base/rwlock.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <vector>

namespace obd {
namespace {

using namespace std::chrono_literals;

TEST(SharedMutex, ReadersShareAndWritersDoNot) {
  SharedMutex mutex;
  mutex.lock_shared();
  EXPECT_TRUE(mutex.try_lock_shared());
  EXPECT_FALSE(mutex.try_lock());
  mutex.unlock_shared();
  EXPECT_FALSE(mutex.try_lock());
  mutex.unlock_shared();

  EXPECT_TRUE(mutex.try_lock());
  std::thread([&] {
    EXPECT_FALSE(mutex.try_lock());
    EXPECT_FALSE(mutex.try_lock_shared());
  }).join();
  mutex.unlock();
  EXPECT_TRUE(mutex.try_lock_shared());
  mutex.unlock_shared();
}

// With the default kind of lock, new readers would go on getting in for as long as one is inside.
TEST(SharedMutex, AWaitingWriterGoesBeforeNewReaders) {
  SharedMutex mutex;
  mutex.lock_shared();
  std::thread writer([&] { const std::unique_lock lock(mutex); });
  bool refused = false;
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (!refused && std::chrono::steady_clock::now() < deadline) {
    std::thread([&] {
      refused = !mutex.try_lock_shared();
      if (!refused) mutex.unlock_shared();
    }).join();
  }
  EXPECT_TRUE(refused);
  mutex.unlock_shared();
  writer.join();
  EXPECT_TRUE(mutex.try_lock_shared());
  mutex.unlock_shared();
}

TEST(SharedMutex, ExcludesUnderLoad) {
  SharedMutex mutex;
  int value = 0;  // only ever even while nobody holds the exclusive side
  std::atomic<int> odd_seen = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, writes = i % 2 == 0] {
      for (int round = 0; round < 5000; ++round) {
        if (writes) {
          const std::unique_lock lock(mutex);
          ++value;
          ++value;
        } else {
          const std::shared_lock lock(mutex);
          odd_seen += value % 2;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(odd_seen, 0);
  EXPECT_EQ(value, 20000);
}

}  // namespace
}  // namespace obd
