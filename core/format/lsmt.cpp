#include "core/format/lsmt.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "core/format/little_endian.h"

namespace obd::lsmt {
namespace {

constexpr auto kMagic = [] {
  constexpr std::array<uint8_t, 24> kValues{
      0x4C, 0x53, 0x4D, 0x54, 0x00, 0x01, 0x02, 0x00,  // magic0: "LSMT" 0 1 2 0
      0x65, 0x7E, 0x63, 0xD2, 0x94, 0x44, 0x08, 0x4C,  // magic1
      0xA2, 0xD2, 0xC8, 0xEC, 0x4F, 0xCF, 0xAE, 0x8A,
  };
  std::array<std::byte, kValues.size()> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(kValues[i]);
  return bytes;
}();

// Offsets of the header's fields.
constexpr size_t kStructSizeAt = 24;
constexpr size_t kFlagsAt = 28;
constexpr size_t kIndexOffsetAt = 32;
constexpr size_t kIndexSizeAt = 40;
constexpr size_t kVirtualSizeAt = 48;
constexpr size_t kUuidAt = 56;
constexpr size_t kParentUuidAt = 93;
constexpr size_t kVersionAt = 132;
constexpr size_t kSubVersionAt = 133;
constexpr size_t kUserTagAt = 134;
// Behind overlaybd's fields, which it ignores, and in the first sector with them.
constexpr size_t kLogMarkAt = 504;

constexpr std::string_view kLogMark = "OBD-LOG1";

constexpr uint32_t kStructSize = 390;
constexpr size_t kUuidTextSize = 36;
static_assert(kUserTagAt + kMaxTagSize == kStructSize);

Uuid decode_uuid(std::span<const std::byte> header, size_t at) {
  const std::string_view text(reinterpret_cast<const char*>(header.data() + at), kUuidTextSize);
  return Uuid::parse(text).value_or(Uuid());
}

}  // namespace

bool has_magic(std::span<const std::byte> bytes) {
  return bytes.size() >= kMagic.size() && std::equal(kMagic.begin(), kMagic.end(), bytes.begin());
}

std::array<std::byte, kHeaderSize> encode_header(const Header& header) {
  std::array<std::byte, kHeaderSize> out{};
  const std::span<std::byte, kHeaderSize> bytes(out);
  const auto put_text = [&](size_t at, std::string_view text) {
    std::memcpy(out.data() + at, text.data(), text.size());
  };
  std::copy(kMagic.begin(), kMagic.end(), out.begin());
  store_le(bytes.subspan<kStructSizeAt, 4>(), kStructSize);
  store_le(bytes.subspan<kFlagsAt, 4>(), header.flags);
  store_le(bytes.subspan<kIndexOffsetAt, 8>(), header.index_offset);
  store_le(bytes.subspan<kIndexSizeAt, 8>(), header.index_size);
  store_le(bytes.subspan<kVirtualSizeAt, 8>(), header.virtual_size);
  put_text(kUuidAt, header.uuid.text());
  put_text(kParentUuidAt, header.parent_uuid.text());
  out[kVersionAt] = std::byte{1};
  out[kSubVersionAt] = std::byte{1};
  put_text(kUserTagAt, std::string_view(header.user_tag).substr(0, kMaxTagSize));
  if (header.has_log) put_text(kLogMarkAt, kLogMark);
  return out;
}

Result<Header> decode_header(std::span<const std::byte, kHeaderSize> bytes,
                             std::string_view where) {
  if (!has_magic(bytes)) {
    return fail(EINVAL, "{}: the magic number is missing: not an LSMT layer, or damaged", where);
  }
  Header header;
  header.flags = load_le<uint32_t>(bytes.subspan<kFlagsAt, 4>());
  header.index_offset = load_le<uint64_t>(bytes.subspan<kIndexOffsetAt, 8>());
  header.index_size = load_le<uint64_t>(bytes.subspan<kIndexSizeAt, 8>());
  header.virtual_size = load_le<uint64_t>(bytes.subspan<kVirtualSizeAt, 8>());
  if (!is_aligned(header.virtual_size, kSectorSize)) {
    return fail(EINVAL, "{}: virtual_size {} is not a multiple of {}", where, header.virtual_size,
                kSectorSize);
  }
  if (header.virtual_size > kMaxDiskSize) {
    return fail(EINVAL, "{}: virtual_size {} is larger than the largest disk, {} bytes", where,
                header.virtual_size, kMaxDiskSize);
  }
  header.uuid = decode_uuid(bytes, kUuidAt);
  header.parent_uuid = decode_uuid(bytes, kParentUuidAt);
  const auto tag = bytes.subspan<kUserTagAt, kMaxTagSize>();
  const auto tag_end = std::find(tag.begin(), tag.end(), std::byte{0});
  header.user_tag.assign(reinterpret_cast<const char*>(tag.data()),
                         static_cast<size_t>(tag_end - tag.begin()));
  header.has_log = std::memcmp(bytes.data() + kLogMarkAt, kLogMark.data(), kLogMark.size()) == 0;
  return header;
}

void encode_entry(const Entry& entry, std::span<std::byte, kEntrySize> out) {
  const uint64_t first = (entry.offset.count() & kInvalidOffset.count()) |
                         (entry.length.count() & kMaxLength.count()) << PackedEntry::kLengthShift;
  const uint64_t second = (entry.physical.count() & kMaxPhysical.count()) |
                          static_cast<uint64_t>(entry.zeroed) << PackedEntry::kZeroedShift;
  store_le(out.first<8>(), first);
  store_le(out.last<8>(), second);
}

void decode_entries(std::span<PackedEntry> entries) {
  if constexpr (std::endian::native != std::endian::little) {
    for (PackedEntry& entry : entries) {
      const auto bytes = std::as_bytes(std::span<PackedEntry, 1>(&entry, 1));
      entry = {load_le<uint64_t>(bytes.first<8>()), load_le<uint64_t>(bytes.last<8>())};
    }
  }
}

Entry decode_entry(std::span<const std::byte, kEntrySize> bytes) {
  const PackedEntry entry{load_le<uint64_t>(bytes.first<8>()), load_le<uint64_t>(bytes.last<8>())};
  return Entry{
      .offset = entry.offset(),
      .length = entry.length(),
      .physical = entry.physical(),
      .zeroed = entry.zeroed(),
  };
}

}  // namespace obd::lsmt
