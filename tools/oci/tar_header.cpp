#include "tools/oci/tar_header.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <limits>

namespace obd::oci {
namespace {

struct Field {
  const char* name;
  size_t offset;
  size_t size;
};

constexpr Field kName{"name", 0, 100};
constexpr Field kMode{"mode", 100, 8};
constexpr Field kUid{"uid", 108, 8};
constexpr Field kGid{"gid", 116, 8};
constexpr Field kSize{"size", 124, 12};
constexpr Field kMtime{"mtime", 136, 12};
constexpr Field kChecksum{"checksum", 148, 8};
constexpr Field kType{"type", 156, 1};
constexpr Field kLink{"link name", 157, 100};
constexpr Field kMagic{"magic", 257, 8};  // with the version
constexpr Field kMajor{"major", 329, 8};
constexpr Field kMinor{"minor", 337, 8};
constexpr Field kPrefix{"prefix", 345, 155};
constexpr Field kStarPrefix{"prefix", 345, 131};
constexpr Field kStarTrailer{"trailer", 508, 4};

constexpr std::string_view kUstar("ustar\0", 6);
constexpr std::string_view kGnu("ustar  \0", 8);
constexpr std::string_view kStar("tar\0", 4);

// Of old GNU sparse files: pairs of 12-byte numbers, then a byte that is not 0 when more follow.
constexpr size_t kSparseOffset = 386;
constexpr size_t kSparseInHeader = 4;
constexpr size_t kSparseContinued = 482;
constexpr Field kSparseRealSize{"real size", 483, 12};
constexpr size_t kSparseInExtension = 21;
constexpr size_t kSparseExtensionContinued = 504;

std::string_view bytes_of(TarBlock block, Field field) {
  return {reinterpret_cast<const char*>(block.data()) + field.offset, field.size};
}

std::string_view text_of(TarBlock block, Field field) {
  const std::string_view bytes = bytes_of(block, field);
  return bytes.substr(0, bytes.find('\0'));
}

// The number in `field`: octal digits between spaces and NULs, or, with the first bit set, the
// bytes of a big-endian two's complement.
Result<int64_t> number_of(TarBlock block, Field field, std::string_view where) {
  const std::string_view bytes = bytes_of(block, field);
  const auto first = static_cast<unsigned char>(bytes.front());
  if ((first & 0x80) != 0) {
    const bool negative = (first & 0x40) != 0;
    uint64_t value = negative ? ~uint64_t{0} : 0;
    for (size_t i = 0; i < bytes.size(); ++i) {
      auto byte = static_cast<unsigned char>(bytes[i]);
      if (i == 0) byte = static_cast<unsigned char>(negative ? byte | 0x80 : byte & 0x7F);
      const uint64_t top = value >> 55;
      if (top != (negative ? 0x1FF : 0)) {
        return fail(EINVAL, "{}: {} does not fit into 64 bits", where, field.name);
      }
      value = value << 8 | byte;
    }
    return static_cast<int64_t>(value);
  }
  constexpr std::string_view kPadding(" \0", 2);
  const size_t begin = bytes.find_first_not_of(kPadding);
  if (begin == std::string_view::npos) return 0;
  const std::string_view digits = bytes.substr(begin, bytes.find_first_of(kPadding, begin) - begin);
  const auto value = parse_number(digits, 8);
  if (!value || *value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return fail(EINVAL, "{}: {} '{}' is no octal number", where, field.name, shown(digits));
  }
  return static_cast<int64_t>(*value);
}

// In which the checksum itself counts as spaces. Some old programs added signed bytes.
Result<void> check_sum(TarBlock block, std::string_view where) {
  int64_t sum = static_cast<int64_t>(kChecksum.size) * ' ';
  int64_t signed_sum = sum;
  for (size_t i = 0; i < kTarBlock; ++i) {
    if (i >= kChecksum.offset && i < kChecksum.offset + kChecksum.size) continue;
    sum += std::to_integer<unsigned char>(block[i]);
    signed_sum += std::to_integer<signed char>(block[i]);
  }
  const auto stored = number_of(block, kChecksum, where);
  if (stored && (*stored == sum || *stored == signed_sum)) return {};
  return fail(
      EINVAL,
      "{}: checksum '{}' is not the header's sum {:o}: this is no tar file, or it is damaged",
      where, shown(text_of(block, kChecksum)), sum);
}

Result<OldSparseMap> decode_ranges(TarBlock block, size_t offset, size_t count,
                                   std::string_view where) {
  OldSparseMap map;
  for (size_t i = 0; i < count; ++i) {
    const Field at{"sparse offset", offset + i * 24, 12};
    const Field length{"sparse length", offset + i * 24 + 12, 12};
    if (bytes_of(block, at).front() == '\0' && bytes_of(block, length).front() == '\0') break;
    OBD_TRY_ASSIGN(const int64_t begin, number_of(block, at, where));
    OBD_TRY_ASSIGN(const int64_t size, number_of(block, length, where));
    if (begin < 0 || size < 0) return fail(EINVAL, "{}: a sparse range is negative", where);
    map.ranges.push_back({static_cast<uint64_t>(begin), static_cast<uint64_t>(size)});
  }
  return map;
}

}  // namespace

std::string shown(std::string_view text) {
  constexpr size_t kMost = 120;
  std::string out(text.substr(0, kMost));
  std::ranges::replace_if(out, [](char c) { return c < ' ' || c > '~'; }, '?');
  if (text.size() > kMost) out += "...";
  return out;
}

std::optional<uint64_t> parse_number(std::string_view digits, int base) {
  uint64_t value = 0;
  const char* const end = digits.data() + digits.size();
  const auto [stop, code] = std::from_chars(digits.data(), end, value, base);
  if (code != std::errc() || stop != end) return std::nullopt;
  return value;
}

Result<TarHeader> decode_tar_header(TarBlock block, std::string_view where) {
  OBD_TRY(check_sum(block, where));
  TarHeader header;
  header.type = bytes_of(block, kType).front();
  header.name = text_of(block, kName);
  header.link = text_of(block, kLink);
  OBD_TRY_ASSIGN(header.mode, number_of(block, kMode, where));
  OBD_TRY_ASSIGN(header.uid, number_of(block, kUid, where));
  OBD_TRY_ASSIGN(header.gid, number_of(block, kGid, where));
  OBD_TRY_ASSIGN(header.size, number_of(block, kSize, where));
  OBD_TRY_ASSIGN(header.mtime, number_of(block, kMtime, where));
  const std::string_view magic = bytes_of(block, kMagic);
  const bool ustar = magic.starts_with(kUstar);
  if (ustar || magic == kGnu) {
    OBD_TRY_ASSIGN(header.major, number_of(block, kMajor, where));
    OBD_TRY_ASSIGN(header.minor, number_of(block, kMinor, where));
  }
  if (ustar) {
    const bool star = bytes_of(block, kStarTrailer) == kStar;
    const std::string_view prefix = text_of(block, star ? kStarPrefix : kPrefix);
    if (!prefix.empty()) header.name = fmt::format("{}/{}", prefix, header.name);
  }
  return header;
}

Result<OldSparseMap> decode_old_sparse_header(TarBlock block, std::string_view where) {
  OBD_TRY_ASSIGN(OldSparseMap map, decode_ranges(block, kSparseOffset, kSparseInHeader, where));
  map.continued = block[kSparseContinued] != std::byte{0};
  OBD_TRY_ASSIGN(const int64_t size, number_of(block, kSparseRealSize, where));
  if (size < 0) return fail(EINVAL, "{}: real size {} is negative", where, size);
  map.real_size = static_cast<uint64_t>(size);
  return map;
}

Result<OldSparseMap> decode_old_sparse_extension(TarBlock block, std::string_view where) {
  OBD_TRY_ASSIGN(OldSparseMap map, decode_ranges(block, 0, kSparseInExtension, where));
  map.continued = block[kSparseExtensionContinued] != std::byte{0};
  return map;
}

}  // namespace obd::oci
