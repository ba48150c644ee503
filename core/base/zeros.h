// Telling zeros from data.
//
// Thread-safety: pure functions.

#pragma once

#include <cstddef>
#include <cstring>
#include <span>

namespace obd {

// True when every byte is zero; `data` is not empty.
inline bool is_all_zero(std::span<const std::byte> data) {
  // Every byte equals the one before it, and the first is zero.
  return data.front() == std::byte{0} &&
         std::memcmp(data.data(), data.data() + 1, data.size() - 1) == 0;
}

}  // namespace obd
