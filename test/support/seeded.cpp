#include "test/support/seeded.h"

#include <gtest/gtest.h>

#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "test/support/random.h"

namespace obd::test {

void for_each_seed_until(const std::function<bool(uint64_t seed)>& body) {
  bool done = false;
  for (uint64_t i = 0; !done; ++i) {
    const uint64_t seed = iteration_seed(i);
    try {
      done = body(seed);
    } catch (const std::exception& exception) {
      FAIL() << exception.what() << "\n  to see it again: OBD_TEST_SEED=" << seed;
    }
  }
}

void for_each_seed(uint64_t iterations, const std::function<void(uint64_t seed)>& body) {
  uint64_t left = scaled(iterations);
  for_each_seed_until([&](uint64_t seed) {
    body(seed);
    return --left == 0;
  });
}

void run_threads(size_t count, const std::function<void(size_t thread)>& body) {
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      try {
        body(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

void require(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error(what);
}

void expect_ok(const Result<void>& result) {
  if (!result) throw std::runtime_error(result.error().message);
}

void expect_error(const Result<void>& result, int code) {
  if (result) throw std::runtime_error(fmt::format("succeeded instead of failing with {}", code));
  if (result.error().code != code) {
    throw std::runtime_error(fmt::format("failed with {} instead of {}: {}", result.error().code,
                                         code, result.error().message));
  }
}

}  // namespace obd::test
