// Markers of the index log: entries that every reader of LSMT drops (invalid offset, length 0) and
// whose second word is ours. docs/format.md gives the layout and the crash argument.
//
//   second word: bits 0-31 check | bits 32-55 distance | bits 56-63 kind   commit, close, distrust
//                bits 0-55 hash                        | bits 56-63 kind   session, the updates
//
// Thread-safety: pure functions and plain values.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "core/format/lsmt.h"

namespace obd::lsmt {

enum class MarkerKind : uint8_t {
  session = 1,  // a writer began: carries a hash of the host's boot id
  // All entries up to `distance` entries before this one are stable, and so is their data.
  commit = 2,
  close = 3,     // a commit by a writer that then stopped in good order
  distrust = 4,  // a sync failed: only the entries up to `distance` before this one may be believed
  // An update (core/image/update.h) may have been applied in part, or has been as a whole: carries
  // a hash of the update's uuid. It counts as an entry does: if a commit says that it is stable.
  update_begun = 5,
  update_done = 6,
};

inline constexpr uint64_t kMaxDistance = (uint64_t{1} << 24) - 1;

struct Marker {
  MarkerKind kind = MarkerKind::commit;
  // Of commit, close and distrust:
  uint32_t check = 0;
  uint32_t distance = 0;  // entries; at most kMaxDistance
  // Of session and of the updates, 56 bits:
  uint64_t hash = 0;
  bool operator==(const Marker&) const = default;
};

// What log_crc starts from at the first entry of a log.
inline constexpr uint32_t kLogCrcInit = 0xFFFFFFFF;

// 56 bits of a boot id's or a uuid's text: 64-bit FNV-1a over its bytes (offset basis
// 0xCBF29CE484222325, prime 0x100000001B3), whose top 8 bits are then XORed into its lowest 8. Part
// of the format.
uint64_t marker_hash(std::string_view text);

// The check value of a commit, close or distrust marker: CRC-32C (obd::crc32c, the plain register)
// over four bytes, the marker's kind and its distance (3 bytes, little-endian), continuing from
// `log_crc`, the CRC-32C of all entry bytes that it covers, from the first entry of the log on,
// which starts from kLogCrcInit.
uint32_t marker_check(uint32_t log_crc, MarkerKind kind, uint32_t distance);

// The caller keeps distance and hash within their widths; higher bits are not written.
void encode_marker(const Marker& marker, std::span<std::byte, kEntrySize> out);

// nullopt for anything but a marker of a known kind: plain entries, upstream's padding, kinds from
// the future.
std::optional<Marker> decode_marker(std::span<const std::byte, kEntrySize> bytes);

}  // namespace obd::lsmt
