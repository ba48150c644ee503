// Runs randomized test bodies, so that a failure tells how to see it again.
//
// A body reports a failure by throwing std::exception: require() and expect_ok() do.
// Thread-safety: the functions may be called from any thread.

#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/base/result.h"

namespace obd::test {

// Calls the body `iterations` times, scaled by OBD_TEST_SCALE, with a seed each. The first
// exception fails the running GoogleTest case, naming the seed, and ends the loop.
void for_each_seed(uint64_t iterations, const std::function<void(uint64_t seed)>& body);

// The same, until the body returns true.
void for_each_seed_until(const std::function<bool(uint64_t seed)>& body);

// Runs the body in `count` threads; rethrows the first exception when all have ended.
void run_threads(size_t count, const std::function<void(size_t thread)>& body);

// Throws with this text when the condition does not hold.
void require(bool condition, const std::string& what);

// Throws with the error's sentence.
void expect_ok(const Result<void>& result);

// The value of a result; throws as expect_ok().
template <typename T>
T expect_value(Result<T> result) {
  if (!result) expect_ok(std::unexpected<Error>(result.error()));
  return std::move(*result);
}

// Throws unless the result is this error.
void expect_error(const Result<void>& result, int code);

}  // namespace obd::test
