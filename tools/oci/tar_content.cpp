// Where a file of a tar file has data, and its content.

#include <algorithm>
#include <array>
#include <cerrno>

#include "tools/oci/tar_reader.h"

namespace obd::oci {
namespace {

constexpr size_t kMaxRanges = size_t{1} << 20;  // of a sparse file

}  // namespace

Result<void> TarReader::set_content(TarEntry& entry, TarBlock block, bool old_sparse) {
  const std::string* major = record("GNU.sparse.major");
  const std::string* map = record(kSparseMap);
  if (!old_sparse && major == nullptr && map == nullptr) {
    if (record("GNU.sparse.size") != nullptr && content_ > 0) {
      return fail(EINVAL, "{}: is a sparse file without a map", where_);
    }
    entry.size = content_;
    if (content_ > 0) entry.data = {{0, content_}};
    return {};
  }

  if (old_sparse) {
    OBD_TRY_ASSIGN(OldSparseMap part, decode_old_sparse_header(block, where_));
    entry.size = part.real_size;
    entry.data = std::move(part.ranges);
    std::array<std::byte, kTarBlock> extension;
    while (part.continued) {
      OBD_TRY(read_stored(extension));
      OBD_TRY_ASSIGN(part, decode_old_sparse_extension(extension, where_));
      entry.data.insert(entry.data.end(), part.ranges.begin(), part.ranges.end());
      if (entry.data.size() > kMaxRanges) {
        return fail(EINVAL, "{}: has more than {} ranges of data", where_, kMaxRanges);
      }
    }
    return check_map(entry);
  }

  const std::string* size = record("GNU.sparse.realsize");
  if (size == nullptr) size = record("GNU.sparse.size");
  const auto real_size = size == nullptr ? std::nullopt : parse_number(*size, 10);
  if (!real_size || *real_size > kMaxFileSize) {
    return fail(EINVAL, "{}: is a sparse file without a size", where_);
  }
  entry.size = *real_size;
  if (major != nullptr && *major == "1") {
    const std::string* minor = record("GNU.sparse.minor");
    if (minor == nullptr || *minor != "0") {
      return fail(ENOTSUP, "{}: is a sparse file of an unknown version 1.{}", where_,
                  minor == nullptr ? "?" : shown(*minor));
    }
    OBD_TRY(read_map_in_content(entry));
    return check_map(entry);
  }
  if ((major != nullptr && *major != "0") || map == nullptr) {
    return fail(ENOTSUP, "{}: is a sparse file of an unknown version {}", where_,
                major == nullptr ? "?" : shown(*major));
  }
  // OFFSET,LENGTH,OFFSET,LENGTH...
  std::vector<uint64_t> numbers;
  for (std::string_view rest = *map; !rest.empty();) {
    const std::string_view digits = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), digits.size() + 1));
    const auto number = parse_number(digits, 10);
    if (!number) return fail(EINVAL, "{}: '{}' in its map is no number", where_, shown(digits));
    numbers.push_back(*number);
  }
  if (numbers.size() % 2 != 0) return fail(EINVAL, "{}: its map ends in mid-range", where_);
  for (size_t i = 0; i < numbers.size(); i += 2) {
    entry.data.push_back({numbers[i], numbers[i + 1]});
  }
  return check_map(entry);
}

// The stored content begins with decimal numbers, a line each: how many ranges there are, then each
// one's offset and length. It is filled to whole blocks.
Result<void> TarReader::read_map_in_content(TarEntry& entry) {
  std::array<std::byte, kTarBlock> block;
  size_t used = block.size();
  const auto next_number = [&]() -> Result<uint64_t> {
    std::string digits;
    for (;;) {
      if (used == block.size()) {
        if (content_ < block.size()) return fail(EINVAL, "{}: its map is cut off", where_);
        OBD_TRY(read_stored(block));
        content_ -= block.size();
        used = 0;
      }
      const auto c = static_cast<char>(block[used++]);
      if (c == '\n') break;
      digits += c;
      if (digits.size() > 20) break;
    }
    if (const auto number = parse_number(digits, 10)) return *number;
    return fail(EINVAL, "{}: '{}' in its map is no number", where_, shown(digits));
  };
  OBD_TRY_ASSIGN(const uint64_t count, next_number());
  if (count > kMaxRanges) {
    return fail(EINVAL, "{}: has {} ranges of data, more than {}", where_, count, kMaxRanges);
  }
  for (uint64_t i = 0; i < count; ++i) {
    ByteRange range;
    OBD_TRY_ASSIGN(range.offset, next_number());
    OBD_TRY_ASSIGN(range.length, next_number());
    entry.data.push_back(range);
  }
  return {};
}

Result<void> TarReader::check_map(TarEntry& entry) const {
  uint64_t end = 0;
  uint64_t stored = 0;
  for (const ByteRange& range : entry.data) {
    if (range.offset < end || range.offset > entry.size ||
        range.length > entry.size - range.offset) {
      return fail(
          EINVAL,
          "{}: its range of data at {}, {} bytes long, overlaps another one or lies past its "
          "size {}",
          where_, range.offset, range.length, entry.size);
    }
    end = range.offset + range.length;
    stored += range.length;
  }
  if (stored != content_) {
    return fail(EINVAL, "{}: its ranges of data have {} bytes, and {} are stored", where_, stored,
                content_);
  }
  // One at the end tells where the file ends.
  std::erase_if(entry.data, [](const ByteRange& range) { return range.length == 0; });
  return {};
}

Result<void> TarReader::read(std::span<std::byte> out) {
  if (out.size() > content_) {
    return fail(EINVAL, "{}: has {} bytes of content left, not {}", where_, content_, out.size());
  }
  OBD_TRY(read_stored(out));
  content_ -= out.size();
  return {};
}

}  // namespace obd::oci
