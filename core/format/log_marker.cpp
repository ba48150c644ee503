#include "core/format/log_marker.h"

#include "core/base/checksum.h"
#include "core/format/little_endian.h"

namespace obd::lsmt {
namespace {

constexpr int kDistanceShift = 32;
constexpr int kKindShift = 56;
constexpr uint64_t kHashMask = (uint64_t{1} << kKindShift) - 1;

bool carries_hash(MarkerKind kind) {
  return kind == MarkerKind::session || kind == MarkerKind::update_begun ||
         kind == MarkerKind::update_done;
}

// The first word of every marker: the invalid offset, length 0.
constexpr uint64_t kFirstWord = kInvalidOffset.count();

}  // namespace

uint64_t marker_hash(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const char c : text) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001B3;
  }
  return (hash >> kKindShift) ^ (hash & kHashMask);
}

uint32_t marker_check(uint32_t log_crc, MarkerKind kind, uint32_t distance) {
  const std::array<std::byte, 4> covered{
      static_cast<std::byte>(kind),
      static_cast<std::byte>(distance),
      static_cast<std::byte>(distance >> 8),
      static_cast<std::byte>(distance >> 16),
  };
  return crc32c(log_crc, covered);
}

void encode_marker(const Marker& marker, std::span<std::byte, kEntrySize> out) {
  uint64_t second = static_cast<uint64_t>(marker.kind) << kKindShift;
  if (carries_hash(marker.kind)) {
    second |= marker.hash & kHashMask;
  } else {
    second |= (marker.distance & kMaxDistance) << kDistanceShift | marker.check;
  }
  store_le(out.first<8>(), kFirstWord);
  store_le(out.last<8>(), second);
}

std::optional<Marker> decode_marker(std::span<const std::byte, kEntrySize> bytes) {
  if (load_le<uint64_t>(bytes.first<8>()) != kFirstWord) return std::nullopt;
  const auto second = load_le<uint64_t>(bytes.last<8>());
  const auto kind = static_cast<MarkerKind>(second >> kKindShift);
  Marker marker{.kind = kind};
  switch (kind) {
    case MarkerKind::session:
    case MarkerKind::update_begun:
    case MarkerKind::update_done:
      marker.hash = second & kHashMask;
      return marker;
    case MarkerKind::commit:
    case MarkerKind::close:
    case MarkerKind::distrust:
      marker.check = static_cast<uint32_t>(second);
      marker.distance = static_cast<uint32_t>(second >> kDistanceShift & kMaxDistance);
      return marker;
  }
  return std::nullopt;
}

}  // namespace obd::lsmt
