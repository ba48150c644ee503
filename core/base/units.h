// Sectors: the unit of LSMT offsets and lengths, as a type of its own.
//
// Bytes are plain uint64_t; a count of 512-byte sectors is always a Sectors. The two meet only in
// bytes() and Sectors::floor/ceil, so one can never be passed for the other.
//
// Thread-safety: plain values. Arithmetic does not check for overflow: values read from a file are
// checked where they are decoded.

#pragma once

#include <compare>
#include <cstdint>

namespace obd {

inline constexpr uint64_t kSectorSize = 512;

// The unit in which the engine prefers to place data, and the smallest that it copies up.
inline constexpr uint64_t kBlockSize = 4096;

// Largest virtual disk, in bytes: NBD offsets are signed 64-bit, so one sector less than 8 EiB.
inline constexpr uint64_t kMaxDiskSize = (uint64_t{1} << 63) - kSectorSize;

class Sectors {
 public:
  constexpr Sectors() = default;
  constexpr explicit Sectors(uint64_t count) : count_(count) {}

  // The sector that holds this byte; the first sector that starts at or after it.
  static constexpr Sectors floor(uint64_t bytes) { return Sectors(bytes / kSectorSize); }
  static constexpr Sectors ceil(uint64_t bytes) {
    return Sectors(bytes / kSectorSize + (bytes % kSectorSize != 0 ? 1 : 0));
  }

  [[nodiscard]] constexpr uint64_t count() const { return count_; }
  [[nodiscard]] constexpr uint64_t bytes() const { return count_ * kSectorSize; }

  constexpr auto operator<=>(const Sectors&) const = default;
  constexpr Sectors& operator+=(Sectors other) { return count_ += other.count_, *this; }
  constexpr Sectors& operator-=(Sectors other) { return count_ -= other.count_, *this; }
  friend constexpr Sectors operator+(Sectors a, Sectors b) { return Sectors(a.count_ + b.count_); }
  friend constexpr Sectors operator-(Sectors a, Sectors b) { return Sectors(a.count_ - b.count_); }

 private:
  uint64_t count_ = 0;
};

constexpr bool is_aligned(uint64_t value, uint64_t unit) { return value % unit == 0; }
constexpr uint64_t align_down(uint64_t value, uint64_t unit) { return value - value % unit; }
// The caller makes sure that value + unit does not overflow.
constexpr uint64_t align_up(uint64_t value, uint64_t unit) {
  return align_down(value + unit - 1, unit);
}

}  // namespace obd
