#include "test/support/random.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>

namespace obd::test {

uint64_t Random::next() {
  // splitmix64: any seed is a good one, and the next is one addition away.
  state_ += 0x9E3779B97F4A7C15;
  uint64_t mixed = state_;
  mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB;
  return mixed ^ (mixed >> 31);
}

void Random::fill(std::span<std::byte> out) {
  while (!out.empty()) {
    const uint64_t value = next();
    const size_t count = std::min(out.size(), sizeof(value));
    std::memcpy(out.data(), &value, count);
    out = out.subspan(count);
  }
}

uint64_t number_from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr || *text == '\0' ? otherwise : std::strtoull(text, nullptr, 10);
}

uint64_t iteration_seed(uint64_t index) {
  static const uint64_t base = number_from_environment("OBD_TEST_SEED", std::random_device()());
  return base + index;
}

uint64_t scaled(uint64_t iterations) {
  const char* text = std::getenv("OBD_TEST_SCALE");
  if (text == nullptr || *text == '\0') return iterations;
  const double scale = std::strtod(text, nullptr);
  return std::max<uint64_t>(1, static_cast<uint64_t>(static_cast<double>(iterations) * scale));
}

}  // namespace obd::test
