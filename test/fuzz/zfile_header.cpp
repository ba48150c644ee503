// A decoded ZFile header says what its bytes say, one that is accepted describes a table that lies
// where it may, and the table in memory finds each block where the lengths before it end.
//
// Input: a header (missing bytes are zeros), then the lengths of the jump table, 4 bytes each.

#include <algorithm>
#include <array>
#include <vector>

#include "core/format/little_endian.h"
#include "core/format/zfile.h"
#include "core/zfile/jump_table.h"
#include "test/fuzz/bounds.h"
#include "test/fuzz/fuzz.h"

namespace {

using namespace obd;

constexpr std::string_view kWhere = "zfile-file";

void check_table(uint32_t block_size, fuzz::Bytes lengths) {
  JumpTable table(block_size, zfile::kHeaderSize);
  std::vector<ByteRange> places;
  uint64_t end = zfile::kHeaderSize;
  for (; lengths.size() >= zfile::kTableEntrySize;
       lengths = lengths.subspan(zfile::kTableEntrySize)) {
    const auto length = load_le<uint32_t>(lengths.first<zfile::kTableEntrySize>());
    if (length == 0 || length > zfile::max_stored_size(block_size)) continue;
    table.push_back(length);
    places.push_back({end, length});
    end += length;
  }
  table.shrink();
  fuzz::require(table.end() == end, "the table ends where its last block does");
  for (size_t block = 0; block < places.size(); ++block) {
    const ByteRange found = table.find(block);
    fuzz::require(found.offset == places[block].offset && found.length == places[block].length,
                  "each block is found where it is");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fuzz::Bounds limits(size);
  std::array<std::byte, zfile::kHeaderSize> bytes{};
  const auto input = fuzz::as_bytes(data, size);
  const auto lengths = input.subspan(std::min(input.size(), bytes.size()));
  std::ranges::copy(input.first(std::min(input.size(), bytes.size())), bytes.begin());
  const auto header = zfile::decode_header(bytes, kWhere);
  if (!header) {
    fuzz::require_sentence(header.error(), kWhere);
    return 0;
  }
  const auto encoded = zfile::encode_header(*header);
  const auto again = zfile::decode_header(encoded, kWhere);
  fuzz::require(again.has_value(), "what was encoded is decoded");
  fuzz::require(zfile::encode_header(*again) == encoded, "no field changes");

  const uint64_t limit = zfile::kHeaderSize + size;
  if (const auto checked = zfile::check_final(*header, limit, kWhere); !checked) {
    fuzz::require_sentence(checked.error(), kWhere);
    return 0;
  }
  fuzz::require(header->blocks <= limit && header->table_offset <= limit &&
                    header->table_offset + header->blocks * zfile::kTableEntrySize <= limit,
                "the table lies within the file");
  fuzz::require(header->content_size <= header->blocks * header->block_size,
                "the table has all blocks");
  check_table(header->block_size, lengths);
  return 0;
}
