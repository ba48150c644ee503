#include "test/interop/upstream_rules.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <string_view>

namespace obd::interop {

namespace fs = std::filesystem;

namespace {

constexpr size_t kBlock = 4096;
constexpr uint64_t kSector = 512;
constexpr uint64_t kFirstSector = 8;
constexpr uint64_t kNowhere = (uint64_t{1} << 50) - 1;
constexpr uint64_t kLongest = (uint64_t{1} << 14) - 1;
constexpr uint64_t kMostSealedEntries = 1'000'000;
constexpr uint64_t kMostLogRecords = 128'000'000;

constexpr uint32_t kIsHeader = 1;
constexpr uint32_t kIsData = 2;
constexpr uint32_t kIsSealed = 4;
constexpr uint32_t kIsSparse = 16;

constexpr std::string_view kMagic{
    "\x4C\x53\x4D\x54\x00\x01\x02\x00"
    "\x65\x7E\x63\xD2\x94\x44\x08\x4C\xA2\xD2\xC8\xEC\x4F\xCF\xAE\x8A",
    24};

template <typename... Args>
void rule(bool kept, fmt::format_string<Args...> format, Args&&... args) {
  if (!kept) throw RuleBroken(fmt::format(format, std::forward<Args>(args)...));
}

uint64_t number(std::string_view bytes, size_t at, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; ++i) {
    value |= uint64_t{static_cast<unsigned char>(bytes[at + i])} << (8 * i);
  }
  return value;
}

// Header and trailer have one form.
struct Block {
  std::string_view bytes;

  [[nodiscard]] bool has_magic() const { return bytes.substr(0, kMagic.size()) == kMagic; }
  [[nodiscard]] uint32_t flags() const { return static_cast<uint32_t>(number(bytes, 28, 4)); }
  [[nodiscard]] bool has(uint32_t flag) const { return (flags() & flag) != 0; }
  [[nodiscard]] uint64_t index_offset() const { return number(bytes, 32, 8); }
  [[nodiscard]] uint64_t index_size() const { return number(bytes, 40, 8); }
  [[nodiscard]] uint64_t virtual_size() const { return number(bytes, 48, 8); }
  [[nodiscard]] std::string text(size_t at, size_t size) const {
    const std::string_view field = bytes.substr(at, size);
    return std::string(field.substr(0, field.find('\0')));
  }
};

ForeignEntry entry_at(std::string_view bytes, size_t at) {
  const uint64_t first = number(bytes, at, 8);
  const uint64_t second = number(bytes, at + 8, 8);
  return {.offset = first & kNowhere,
          .length = first >> 50,
          .physical = second & ((uint64_t{1} << 55) - 1),
          .zeroed = (second >> 55 & 1) != 0};
}

Block header_of(std::string_view file, std::string_view what) {
  rule(file.size() >= kBlock, "{}: no room for a header", what);
  const Block header{file.substr(0, kBlock)};
  rule(header.has_magic(), "{}: header magic", what);
  rule(header.has(kIsHeader), "{}: header flag", what);
  return header;
}

Block trailer_of(std::string_view file) {
  rule(file.size() >= 2 * kBlock, "no room for a trailer");
  return {file.substr(file.size() - kBlock)};
}

void describe(const Block& block, ForeignLayer& layer) {
  layer.virtual_size = block.virtual_size();
  layer.uuid = block.text(56, 37);
  layer.parent_uuid = block.text(93, 37);
  layer.user_tag = block.text(134, 256);
}

void check_place(const ForeignEntry& entry, uint64_t end, size_t number) {
  const uint64_t stop = entry.physical + (entry.zeroed ? 0 : entry.length);
  rule(entry.physical >= kFirstSector, "entry {}: lies in the header", number);
  rule(stop <= end, "entry {}: ends at sector {}, the data at {}", number, stop, end);
}

bool is_uuid(std::string_view text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const auto c = static_cast<unsigned char>(text[i]);
    if (dash ? c != '-' : (std::isxdigit(c) == 0 || std::islower(c) != 0)) return false;
  }
  return true;
}

bool is_zeros(std::string_view bytes) {
  return bytes.find_first_not_of('\0') == std::string_view::npos;
}

// Fields that nothing reads but every producer writes alike.
void check_block_writer(const Block& block, std::string_view what) {
  rule(number(block.bytes, 24, 4) == 390, "{}: struct size", what);
  rule(is_uuid(block.text(56, 37)), "{}: uuid '{}'", what, block.text(56, 37));
  rule(is_uuid(block.text(93, 37)), "{}: parent uuid '{}'", what, block.text(93, 37));
  rule(number(block.bytes, 130, 2) == 0, "{}: reserved bytes", what);
  rule(block.bytes[132] == 1 && block.bytes[133] == 1, "{}: version", what);
  rule(is_zeros(block.bytes.substr(390)), "{}: padding is not zero", what);
  rule(block.virtual_size() % kSector == 0, "{}: virtual size", what);
}

}  // namespace

ForeignLayer read_sealed_layer(const fs::path& path) {
  const std::string file = read_text(path);
  const Block header = header_of(file, "layer");
  rule(header.has(kIsData), "layer: header of an index file");
  const Block trailer = trailer_of(file);
  rule(trailer.has_magic(), "trailer magic");
  rule(!trailer.has(kIsHeader), "trailer with the header flag");
  rule(trailer.has(kIsData), "trailer of an index file");
  rule(trailer.has(kIsSealed), "trailer is not sealed");

  const uint64_t trailer_offset = file.size() - kBlock;
  const uint64_t index_offset = trailer.index_offset();
  rule(trailer.index_size() <= kMostSealedEntries, "index size {}", trailer.index_size());
  rule(index_offset <= trailer_offset, "index offset {}", index_offset);
  rule(trailer.index_size() * 16 <= trailer_offset - index_offset, "index runs into the trailer");

  ForeignLayer layer;
  layer.header_flags = header.flags();
  layer.trailer_flags = trailer.flags();
  describe(trailer, layer);
  uint64_t last_end = 0;
  for (size_t i = 0; i < trailer.index_size(); ++i) {
    const ForeignEntry entry = entry_at(file, index_offset + i * 16);
    if (entry.offset == kNowhere) {
      ++layer.invalid_entries;
      continue;
    }
    rule(entry.offset >= last_end, "entry {}: out of order or overlapping", i);
    check_place(entry, index_offset / kSector, i);
    last_end = entry.offset + entry.length;
    layer.entries.push_back(entry);
  }
  return layer;
}

ForeignLayer read_append_pair(const fs::path& data_path, const fs::path& index_path) {
  const std::string index = read_text(index_path);
  const std::string data = read_text(data_path);
  const Block data_header = header_of(data, "data");
  rule(data_header.has(kIsData), "data: header of an index file");
  rule(!data_header.has(kIsSealed), "data: sealed");
  rule(!data_header.has(kIsSparse), "data: sparse");
  const Block index_header = header_of(index, "index");
  rule(!index_header.has(kIsData), "index: header of a data file");
  rule(!index_header.has(kIsSealed), "index: sealed");

  ForeignLayer layer;
  layer.header_flags = data_header.flags();
  describe(index_header, layer);
  const size_t records = (index.size() - kBlock) / 16;
  rule(records <= kMostLogRecords, "index: {} records", records);
  for (size_t i = 0; i < records; ++i) {
    const ForeignEntry entry = entry_at(index, kBlock + i * 16);
    if (entry.offset == kNowhere) {
      ++layer.invalid_entries;
      continue;
    }
    rule(entry.length > 0, "record {}: length 0", i);
    check_place(entry, data.size() / kSector, i);
    layer.entries.push_back(entry);
  }
  return layer;
}

ForeignLayer read_sparse_layer(const fs::path& path) {
  std::string header_bytes(kBlock, '\0');
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw std::runtime_error("cannot open " + path.string());
  const ssize_t got = pread(fd, header_bytes.data(), kBlock, 0);
  ForeignLayer layer;
  const off_t end = lseek(fd, 0, SEEK_END);
  off_t at = kBlock;
  while (at < end && (at = lseek(fd, at, SEEK_DATA)) >= 0) {
    const off_t hole = std::min(lseek(fd, at, SEEK_HOLE), end);
    uint64_t sector = static_cast<uint64_t>(at) / kSector;
    for (const uint64_t stop = static_cast<uint64_t>(hole) / kSector; sector < stop;) {
      const uint64_t length = std::min(stop - sector, kLongest);
      layer.entries.push_back(
          {.offset = sector - kFirstSector, .length = length, .physical = sector});
      sector += length;
    }
    at = hole;
  }
  close(fd);
  rule(got == static_cast<ssize_t>(kBlock), "data: no room for a header");
  const Block header = header_of(header_bytes, "data");
  rule(header.has(kIsData), "data: header of an index file");
  rule(!header.has(kIsSealed), "data: sealed");
  rule(header.has(kIsSparse), "data: not sparse");
  layer.header_flags = header.flags();
  describe(header, layer);
  return layer;
}

void check_sealed_writer(const fs::path& path) {
  const std::string file = read_text(path);
  const Block header = header_of(file, "layer");
  const Block trailer = trailer_of(file);
  check_block_writer(header, "header");
  check_block_writer(trailer, "trailer");
  rule(header.text(56, 37) == trailer.text(56, 37), "uuids of header and trailer differ");
  const uint64_t index_end = trailer.index_offset() + trailer.index_size() * 16;
  rule(trailer.index_offset() % kSector == 0, "index offset {}", trailer.index_offset());
  rule(file.size() % kSector == 0, "file size {}", file.size());
  rule(is_zeros(std::string_view(file).substr(index_end, file.size() - kBlock - index_end)),
       "padding after the index is not zero");
  for (uint64_t at = trailer.index_offset(); at < index_end; at += 16) {
    const ForeignEntry entry = entry_at(file, at);
    rule(entry.offset == kNowhere || entry.length > 0, "entry of length 0");
    rule(number(file, at + 8, 8) >> 56 == 0, "entry with a tag");
    rule(entry.offset == kNowhere ||
             (entry.offset + entry.length) * kSector <= trailer.virtual_size(),
         "entry past the end of the disk");
  }
}

void check_append_writer(const fs::path& data_path, const fs::path& index_path) {
  const std::string index = read_text(index_path);
  const std::string data = read_text(data_path);
  const Block data_header = header_of(data, "data");
  const Block index_header = header_of(index, "index");
  check_block_writer(data_header, "data header");
  check_block_writer(index_header, "index header");
  rule(data.size() % kSector == 0, "data: length {}", data.size());
  rule((index.size() - kBlock) % 16 == 0, "index: length {}", index.size());
  rule(data_header.index_offset() == 0, "data header: index offset");
  rule(index_header.index_offset() == kBlock, "index header: index offset");
  rule(data_header.index_size() == 0 && index_header.index_size() == 0, "index size in a header");
  rule(data_header.virtual_size() == index_header.virtual_size(), "virtual sizes differ");
  rule(data_header.text(56, 37) == index_header.text(56, 37), "uuids differ");
  for (size_t at = kBlock; at < index.size(); at += 16) {
    const ForeignEntry entry = entry_at(index, at);
    if (entry.offset == kNowhere) {
      rule(entry.length == 0, "invalid entry with a length");
      continue;
    }
    rule(number(index, at + 8, 8) >> 56 == 0, "record with a tag");
    rule((entry.offset + entry.length) * kSector <= index_header.virtual_size(),
         "record past the end of the disk");
  }
}

void paint(const ForeignLayer& layer, const fs::path& data, Bytes& disk) {
  const std::string file = read_text(data);
  for (const ForeignEntry& entry : layer.entries) {
    for (uint64_t i = 0; i < entry.length * kSector; ++i) {
      const uint64_t at = entry.offset * kSector + i;
      if (at >= disk.size()) break;
      disk[at] =
          entry.zeroed ? std::byte{0} : static_cast<std::byte>(file[entry.physical * kSector + i]);
    }
  }
}

}  // namespace obd::interop
