#include "core/format/tar.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <limits>
#include <optional>
#include <string>

namespace obd::tar {
namespace {

struct Field {
  size_t offset;
  size_t size;
};

constexpr Field kName{0, 100};
constexpr Field kMode{100, 8};
constexpr Field kUid{108, 8};
constexpr Field kGid{116, 8};
constexpr Field kSize{124, 12};
constexpr Field kMtime{136, 12};
constexpr Field kChecksum{148, 8};
constexpr Field kType{156, 1};
constexpr Field kMagic{257, 6};
constexpr Field kVersion{263, 2};
constexpr Field kUserName{265, 32};
constexpr Field kGroupName{297, 32};

constexpr char kTypePax = 'x';
constexpr char kTypeFile = '0';
constexpr char kTypeOldFile = '\0';
constexpr std::string_view kUstar = "ustar";
constexpr std::string_view kUstarVersion = "00";

using Block = std::span<const std::byte, kBlockSize>;

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string_view text_of(Block block, Field field) {
  return text_of(block.subspan(field.offset, field.size));
}

// The digits between the spaces and NULs that tar programs pad with.
std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kPadding(" \0", 2);
  const size_t begin = text.find_first_not_of(kPadding);
  if (begin == std::string_view::npos) return "";
  return text.substr(begin, text.find_last_not_of(kPadding) - begin + 1);
}

std::optional<uint64_t> number_in(std::string_view digits, int base) {
  uint64_t value = 0;
  const char* const end = digits.data() + digits.size();
  const auto [stop, code] = std::from_chars(digits.data(), end, value, base);
  if (code != std::errc() || stop != end) return std::nullopt;
  return value;
}

// The sum over the header, in which the checksum itself counts as spaces.
uint64_t sum_of(Block block) {
  uint64_t sum = kChecksum.size * ' ';
  for (size_t i = 0; i < kBlockSize; ++i) {
    const bool own = i >= kChecksum.offset && i < kChecksum.offset + kChecksum.size;
    if (!own) sum += std::to_integer<uint64_t>(block[i]);
  }
  return sum;
}

std::string printable(std::string_view text) {
  std::string out(text);
  std::ranges::replace_if(out, [](char c) { return c < ' ' || c > '~'; }, '.');
  return out;
}

Result<void> check_header(Block block, std::string_view where) {
  if (!text_of(block, kMagic).starts_with(kUstar)) {
    return fail(EINVAL, "{}: magic '{}' is not '{}': the tar file is not whole", where,
                printable(text_of(block, kMagic)), kUstar);
  }
  if (text_of(block, kVersion) != kUstarVersion) {
    return fail(EINVAL,
                "{}: version '{}' is not '{}': wrap the layer anew with tar --format=posix, or "
                "unpack it",
                where, printable(text_of(block, kVersion)), kUstarVersion);
  }
  const std::string_view digits = trimmed(text_of(block, kChecksum));
  const auto stored = number_in(digits, 8);
  if (stored != sum_of(block)) {
    return fail(EINVAL, "{}: checksum '{}' (octal) is not the header's sum {:o}: it is damaged",
                where, printable(digits), sum_of(block));
  }
  return {};
}

Result<uint64_t> size_field(Block block, std::string_view where) {
  const std::string_view digits = trimmed(text_of(block, kSize));
  if (const auto size = number_in(digits, 8)) return *size;
  return fail(EINVAL, "{}: size '{}' is no octal number", where, printable(digits));
}

// The value of the record `size`, if there is one. A record is "LENGTH KEY=VALUE\n", its length
// counting all of it.
Result<std::optional<uint64_t>> size_record(std::string_view records, std::string_view where) {
  std::optional<uint64_t> found;
  while (!records.empty()) {
    const size_t space = records.find(' ');
    const auto length = number_in(records.substr(0, space), 10);
    if (space == std::string_view::npos || !length || *length <= space + 1 ||
        *length > records.size() || records[*length - 1] != '\n') {
      return fail(EINVAL, "{}: the record '{}' is malformed", where,
                  printable(records.substr(0, 40)));
    }
    const std::string_view record = records.substr(space + 1, *length - space - 2);
    constexpr std::string_view kKey = "size=";
    if (record.starts_with(kKey)) {
      found = number_in(record.substr(kKey.size()), 10);
      if (!found) return fail(EINVAL, "{}: '{}' is no size", where, printable(record));
    }
    records.remove_prefix(*length);
  }
  return found;
}

void put(std::span<std::byte, kBlockSize> block, Field field, std::string_view text) {
  std::memcpy(&block[field.offset], text.data(), std::min(text.size(), field.size));
}

// As overlaybd's tar writer does: the number to the right, then a space, then a NUL in fields of
// 8 bytes.
void put_octal(std::span<std::byte, kBlockSize> block, Field field, uint64_t value) {
  const size_t digits = field.size == 12 ? 11 : 6;
  put(block, field, fmt::format("{:>{}o} ", value, digits));
}

void finish_header(std::span<std::byte, kBlockSize> block, std::string_view name, char type) {
  put(block, kName, name);
  put(block, kType, {&type, 1});
  put(block, kMagic, kUstar);
  put(block, kVersion, kUstarVersion);
  put_octal(block, kChecksum, sum_of(block));
}

}  // namespace

bool looks_like_tar(std::span<const std::byte> start) {
  return start.size() >= kBlockSize &&
         text_of(Block(start.first<kBlockSize>()), kMagic).starts_with(kUstar);
}

Result<ByteRange> find_member(std::span<const std::byte> start, uint64_t file_size,
                              std::string_view where) {
  size_t at = 0;
  const auto next_block = [&](std::string_view part) -> Result<Block> {
    if (start.size() - at < kBlockSize) return fail(EINVAL, "{}: is cut off", part);
    const Block block(start.subspan(at).first<kBlockSize>());
    OBD_TRY(check_header(block, part));
    at += kBlockSize;
    return block;
  };
  const std::string header = fmt::format("{}: tar header", where);
  OBD_TRY_ASSIGN(Block block, next_block(header));
  std::optional<uint64_t> pax_member_size;
  if (text_of(block, kType)[0] == kTypePax) {
    const std::string pax = fmt::format("{}: tar pax header", where);
    OBD_TRY_ASSIGN(const uint64_t size, size_field(block, pax));
    if (size > kMaxPaxSize) {
      return fail(EINVAL, "{}: size {} is more than {}", pax, size, kMaxPaxSize);
    }
    const size_t blocks_size = (size + kBlockSize - 1) / kBlockSize * kBlockSize;
    if (start.size() - at < blocks_size) return fail(EINVAL, "{}: is cut off", pax);
    OBD_TRY_ASSIGN(pax_member_size, size_record(text_of(start.subspan(at, size)), pax));
    at += blocks_size;
    OBD_TRY_ASSIGN(block, next_block(header));
  }
  if (const char type = text_of(block, kType)[0]; type != kTypeFile && type != kTypeOldFile) {
    return fail(EINVAL, "{}: type '{}' of the first member is not that of a file: no layer in it",
                header, printable({&type, 1}));
  }
  OBD_TRY_ASSIGN(uint64_t size, size_field(block, header));
  if (pax_member_size) size = *pax_member_size;
  if (size > file_size - at) {
    return fail(EINVAL,
                "{}: size {} of the member is more than the {} bytes that follow: the tar file is "
                "cut off",
                header, size, file_size - at);
  }
  return ByteRange{at, size};
}

std::array<std::byte, kPrefixSize> encode_prefix(uint64_t size) {
  std::array<std::byte, kPrefixSize> out{};
  const std::span<std::byte, kPrefixSize> bytes(out);
  // The length counts its own digits: one or two of them make the whole at most 99.
  const std::string payload = fmt::format(" size={}\n", size);
  const size_t length = payload.size() + (payload.size() + 1 < 10 ? 1 : 2);
  const std::string record = fmt::format("{}{}", length, payload);

  const auto pax = bytes.first<kBlockSize>();
  put_octal(pax, kSize, record.size());
  finish_header(pax, "overlaybd.pax", kTypePax);
  std::memcpy(&out[kBlockSize], record.data(), record.size());

  const auto member = bytes.last<kBlockSize>();
  put(member, kMode, "100644 ");
  put_octal(member, kUid, 0);
  put_octal(member, kGid, 0);
  put_octal(member, kSize, 0);  // the pax record has it
  put_octal(member, kMtime, 0);
  put(member, kUserName, "root");
  put(member, kGroupName, "root");
  finish_header(member, "overlaybd.commit", kTypeFile);
  return out;
}

}  // namespace obd::tar
