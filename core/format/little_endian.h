// Unsigned integers in little-endian byte order, whatever the host's.
//
// Thread-safety: pure functions.

#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

namespace obd {

template <std::unsigned_integral T>
constexpr void store_le(std::span<std::byte, sizeof(T)> out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out[i] = static_cast<std::byte>(value >> (8 * i));
}

template <std::unsigned_integral T>
constexpr T load_le(std::span<const std::byte, sizeof(T)> bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(value | static_cast<T>(std::to_integer<T>(bytes[i]) << (8 * i)));
  }
  return value;
}

}  // namespace obd
