// Random choices that a seed repeats, and the knobs that every randomized test obeys.
//
//   OBD_TEST_SEED   decimal; the first iteration uses exactly this seed. Default: a new one each
//   run. OBD_TEST_SCALE  a factor on the number of iterations. Default: 1.
//
// A failing test names the seed of the failing iteration, so that OBD_TEST_SEED=<it> fails at once.
//
// Thread-safety: a Random belongs to one thread; the functions may be called from any.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace obd::test {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next();
  // 0 to bound - 1; bound is not 0.
  uint64_t below(uint64_t bound) { return next() % bound; }
  // low to high, both included.
  uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }
  bool percent(uint64_t chance) { return below(100) < chance; }
  void fill(std::span<std::byte> out);

 private:
  uint64_t state_;
};

// The seed of iteration `index` of a test.
uint64_t iteration_seed(uint64_t index);

// A number of iterations, scaled by OBD_TEST_SCALE; at least 1.
uint64_t scaled(uint64_t iterations);

// A whole number from the environment; `otherwise` when it is not set.
uint64_t number_from_environment(const char* name, uint64_t otherwise);

}  // namespace obd::test
