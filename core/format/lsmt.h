// LSMT: header, trailer and index entries, byte for byte. Pure functions over spans, no I/O.
//
// Source of the format: docs/format.md. All integers on disk are little-endian.
// Thread-safety: pure functions and plain values. Errors: EINVAL; the sentence starts with
// `where` (the file and part, e.g. "/a/b.lsmt: trailer") and names the field and the value.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "core/base/units.h"
#include "core/base/uuid.h"

namespace obd::lsmt {

inline constexpr size_t kHeaderSize = 4096;  // header and trailer alike
inline constexpr size_t kEntrySize = 16;
inline constexpr size_t kMaxTagSize = 256;
inline constexpr Sectors kFirstDataSector{kHeaderSize / kSectorSize};

// An entry's fields are 50, 14 and 55 bits wide.
inline constexpr Sectors kInvalidOffset{(uint64_t{1} << 50) - 1};
inline constexpr Sectors kMaxLength{(uint64_t{1} << 14) - 1};
inline constexpr Sectors kMaxPhysical{(uint64_t{1} << 55) - 1};
// Longest length that is a multiple of kBlockSize: how the engine splits longer runs.
inline constexpr Sectors kMaxAlignedLength{kMaxLength.count() / 8 * 8};
// First sector that no entry can describe: data there has no place in the format (512 PiB).
inline constexpr Sectors kAddressableEnd = kInvalidOffset;

// The most index entries that overlaybd itself opens in a sealed layer.
inline constexpr uint64_t kMaxUpstreamEntries = 1'000'000;

enum Flag : uint32_t {
  kFlagHeader = 1u << 0,  // clear: trailer
  kFlagData = 1u << 1,    // clear: index file
  kFlagSealed = 1u << 2,
  kFlagSparse = 1u << 4,
};
inline constexpr uint32_t kKnownFlags = kFlagHeader | kFlagData | kFlagSealed | kFlagSparse;

struct Header {
  uint32_t flags = 0;
  uint64_t index_offset = 0;  // bytes
  uint64_t index_size = 0;    // entries
  uint64_t virtual_size = 0;  // bytes
  Uuid uuid;
  Uuid parent_uuid;
  std::string user_tag;  // commit message, at most kMaxTagSize bytes
  // Of a sparse data file: its index log was there from the start, as overlaybd's never is, so an
  // empty one has lost what it held.
  bool has_log = false;

  [[nodiscard]] bool is_header() const { return (flags & kFlagHeader) != 0; }
  [[nodiscard]] bool is_data() const { return (flags & kFlagData) != 0; }
  [[nodiscard]] bool is_sealed() const { return (flags & kFlagSealed) != 0; }
  [[nodiscard]] bool is_sparse() const { return (flags & kFlagSparse) != 0; }
  [[nodiscard]] uint32_t unknown_flags() const { return flags & ~kKnownFlags; }
};

// True when the bytes start with LSMT's two magic numbers.
bool has_magic(std::span<const std::byte> bytes);

// The caller refuses a user_tag longer than kMaxTagSize; here it would be cut.
std::array<std::byte, kHeaderSize> encode_header(const Header& header);

// Checks the magic numbers and virtual_size (a multiple of 512, at most kMaxDiskSize). A UUID field
// that holds no UUID decodes as nil: it is never used to find data. Flags, offsets and sizes are
// returned as they stand; their meaning depends on the file, so its reader checks them.
Result<Header> decode_header(std::span<const std::byte, kHeaderSize> bytes, std::string_view where);

// One index entry. physical counts sectors from byte 0 of the layer's file.
struct Entry {
  Sectors offset = kInvalidOffset;
  Sectors length;
  Sectors physical;
  bool zeroed = false;

  [[nodiscard]] bool is_invalid() const { return offset == kInvalidOffset; }
  [[nodiscard]] Sectors end() const { return offset + length; }
  bool operator==(const Entry&) const = default;
};

// The entry that readers drop, and that nothing else is told by.
inline constexpr Entry kPadding = {};

// An entry as the two words that it is on disk, in the host's byte order: the form in which an
// index of millions of entries is checked and merged.
struct PackedEntry {
  static constexpr int kLengthShift = 50;
  static constexpr int kZeroedShift = 55;

  uint64_t first;   // offset and length
  uint64_t second;  // physical, zeroed and an unused tag

  [[nodiscard]] Sectors offset() const { return Sectors(first & kInvalidOffset.count()); }
  [[nodiscard]] Sectors length() const { return Sectors(first >> kLengthShift); }
  [[nodiscard]] Sectors end() const { return offset() + length(); }
  [[nodiscard]] Sectors physical() const { return Sectors(second & kMaxPhysical.count()); }
  [[nodiscard]] bool zeroed() const { return (second >> kZeroedShift & 1) != 0; }
  [[nodiscard]] bool is_invalid() const { return offset() == kInvalidOffset; }
};
static_assert(sizeof(PackedEntry) == kEntrySize);

// In place: what has been read into the entries as bytes. Nothing to do on most hosts.
void decode_entries(std::span<PackedEntry> entries);

// The caller keeps the fields within their widths; higher bits are not written.
void encode_entry(const Entry& entry, std::span<std::byte, kEntrySize> out);
Entry decode_entry(std::span<const std::byte, kEntrySize> bytes);  // ignores the tag

}  // namespace obd::lsmt
