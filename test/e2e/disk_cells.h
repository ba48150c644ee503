// Disk content that tells where it came from: the disk is seen as cells of 512 bytes, and every
// cell holds either zeros or a pattern made from a stamp and the cell's number. So a reader knows
// of any cell which request wrote it, and a cell that is torn, stale or misplaced is found out.
//
// Thread-safety: pure functions.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

namespace obd::test {

inline constexpr uint64_t kCellSize = 512;  // bytes

using Stamp = uint64_t;
inline constexpr Stamp kZeroStamp = 0;  // the stamp of a cell of zeros

inline uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31);
}

inline uint64_t cell_word(Stamp stamp, uint64_t cell, size_t index) {
  if (stamp == kZeroStamp) return 0;
  if (index == 0) return stamp;
  return mix(stamp * 0x9e3779b97f4a7c15U + cell * 64 + index);
}

// Fills whole cells, the first of which has number `cell` on the disk.
inline void fill_cells(std::span<std::byte> out, Stamp stamp, uint64_t cell) {
  for (size_t at = 0; at < out.size(); at += kCellSize, ++cell) {
    for (size_t index = 0; index < kCellSize / sizeof(uint64_t); ++index) {
      const uint64_t word = cell_word(stamp, cell, index);
      std::memcpy(&out[at + index * sizeof(word)], &word, sizeof(word));
    }
  }
}

// The stamp that one cell holds; nullopt when the bytes are no cell that anybody wrote there.
inline std::optional<Stamp> stamp_of_cell(std::span<const std::byte> bytes, uint64_t cell) {
  Stamp stamp = 0;
  std::memcpy(&stamp, bytes.data(), sizeof(stamp));
  for (size_t index = 0; index < kCellSize / sizeof(uint64_t); ++index) {
    uint64_t word = 0;
    std::memcpy(&word, &bytes[index * sizeof(word)], sizeof(word));
    if (word != cell_word(stamp, cell, index)) return std::nullopt;
  }
  return stamp;
}

}  // namespace obd::test
