#include "core/zfile/zfile_reader.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "core/format/little_endian.h"

namespace obd {
namespace {

constexpr size_t kTableEntriesPerRead = 65536;  // 256 KiB
// A request of this size is a scan: what it reads will hardly be wanted again soon.
constexpr size_t kScanSize = size_t{64} << 10;
// How much of the file a scan reads at once.
constexpr size_t kStoredPerRead = size_t{512} << 10;

// The header that has the final values: the file's, or its trailer.
Result<zfile::Header> read_header(const Blob& blob) {
  std::array<std::byte, zfile::kHeaderSize> bytes{};
  const std::string where = blob.path() + ": zfile header";
  OBD_TRY(read_exactly(blob, bytes, 0));
  OBD_TRY_ASSIGN(const zfile::Header header, zfile::decode_header(bytes, where));
  if (!header.is_header() || (header.flags & zfile::kFlagData) == 0) {
    return fail(EINVAL, "{}: flags {:#x} are not those of a header", where, header.flags);
  }
  if (header.is_final()) {
    OBD_TRY(zfile::check_final(header, blob.size(), where));
    return header;
  }
  const std::string end = blob.path() + ": zfile trailer";
  if (blob.size() < 2 * zfile::kHeaderSize) {
    return fail(EINVAL, "{}: {} bytes are too few for a header and a trailer: the file is cut off",
                end, blob.size());
  }
  const uint64_t offset = blob.size() - zfile::kHeaderSize;
  OBD_TRY(read_exactly(blob, bytes, offset));
  OBD_TRY_ASSIGN(const zfile::Header trailer, zfile::decode_header(bytes, end));
  constexpr uint64_t kWanted = zfile::kFlagData | zfile::kFlagSealed;
  if (trailer.is_header() || (trailer.flags & kWanted) != kWanted) {
    return fail(EINVAL, "{}: flags {:#x} are not those of a trailer", end, trailer.flags);
  }
  OBD_TRY(zfile::check_final(trailer, offset, end));
  return trailer;
}

}  // namespace

ZfileReader::ZfileReader(std::unique_ptr<Blob> stored, std::shared_ptr<BlockCache> cache,
                         const zfile::Header& header)
    : stored_(std::move(stored)),
      cache_(std::move(cache)),
      cache_id_(cache_->new_blob()),
      header_(header),
      table_(header.block_size, zfile::kHeaderSize),
      container_(stored_->container()) {}

Result<std::unique_ptr<ZfileReader>> ZfileReader::open(std::unique_ptr<Blob> stored,
                                                       std::shared_ptr<BlockCache> cache) {
  if (!cache) cache = std::make_shared<BlockCache>(0);
  OBD_TRY_ASSIGN(const zfile::Header header, read_header(*stored));
  std::unique_ptr<ZfileReader> reader(new ZfileReader(std::move(stored), std::move(cache), header));
  OBD_TRY(reader->load_table());
  reader->container_.compression = zfile::compression_of(header.algorithm);
  reader->container_.block_size = header.block_size;
  reader->container_.blocks = header.blocks;
  reader->container_.checksums = header.checksums;
  reader->container_.compressed_size = reader->table_.end() - zfile::kHeaderSize;
  reader->container_.content_size = header.content_size;
  return reader;
}

Result<void> ZfileReader::load_table() {
  const uint64_t least = header_.checksums ? zfile::kChecksumSize : 0;
  const uint64_t most = zfile::max_stored_size(header_.block_size);
  std::vector<std::byte> buffer(std::min<uint64_t>(kTableEntriesPerRead, header_.blocks) *
                                zfile::kTableEntrySize);
  uint32_t checksum = 0;
  for (uint64_t block = 0; block < header_.blocks;) {
    const uint64_t count = std::min<uint64_t>(kTableEntriesPerRead, header_.blocks - block);
    const std::span<std::byte> chunk(buffer.data(), count * zfile::kTableEntrySize);
    OBD_TRY(read_exactly(*stored_, chunk, header_.table_offset + block * zfile::kTableEntrySize));
    checksum = zfile::table_checksum(checksum, chunk);
    for (uint64_t i = 0; i < count; ++i, ++block) {
      const auto length = load_le<uint32_t>(std::span<const std::byte, zfile::kTableEntrySize>(
          chunk.subspan(i * zfile::kTableEntrySize, zfile::kTableEntrySize)));
      if (length <= least || length > most) {
        return fail(EINVAL,
                    "{}: zfile jump table: entry {}: a length of {} bytes is not within "
                    "{} to {}",
                    path(), block, length, least + 1, most);
      }
      table_.push_back(length);
    }
  }
  if (header_.has_digest() && checksum != header_.table_checksum) {
    return fail(EINVAL,
                "{}: zfile jump table: checksum {:#010x} should be index_crc {:#010x}: the "
                "table is damaged",
                path(), checksum, header_.table_checksum);
  }
  if (table_.end() > header_.table_offset) {
    return fail(EINVAL, "{}: zfile jump table: the blocks end at byte {}, behind index_offset {}",
                path(), table_.end(), header_.table_offset);
  }
  table_.shrink();
  return {};
}

size_t ZfileReader::content_length(uint64_t block) const {
  return static_cast<size_t>(
      std::min<uint64_t>(header_.block_size, size() - block * header_.block_size));
}

Result<size_t> ZfileReader::read_at(std::span<std::byte> out, uint64_t offset) const {
  if (offset >= size()) return 0;
  out = out.first(std::min<uint64_t>(out.size(), size() - offset));
  const bool scan = out.size() >= kScanSize || !cache_->keeps_blocks();
  for (size_t done = 0; done < out.size();) {
    const uint64_t block = (offset + done) / header_.block_size;
    const size_t skip = (offset + done) % header_.block_size;
    const size_t length = content_length(block);
    const size_t wanted = std::min(length - skip, out.size() - done);
    const BlockCache::Key key{cache_id_, block};
    BlockCache::Block cached = cache_->find(key);
    if (!cached && scan && wanted == length) {
      OBD_TRY_ASSIGN(const size_t count, read_blocks(block, out.subspan(done)));
      done += count;
      continue;
    }
    if (!cached) {
      const auto fill = [&](std::span<std::byte> content) -> Result<void> {
        OBD_TRY(read_blocks(block, content));
        return {};
      };
      OBD_TRY_ASSIGN(cached, cache_->load(key, length, fill));
    }
    std::memcpy(&out[done], &cached[static_cast<ptrdiff_t>(skip)], wanted);
    done += wanted;
  }
  return out.size();
}

Result<size_t> ZfileReader::read_blocks(uint64_t first, std::span<std::byte> out) const {
  const uint64_t start = table_.find(first).offset;
  uint64_t end_block = first;
  uint64_t end = start;
  size_t content = 0;
  while (end_block < header_.blocks && content + content_length(end_block) <= out.size()) {
    const ByteRange next = table_.find(end_block);
    if (end_block != first && next.offset + next.length - start > kStoredPerRead) break;
    end = next.offset + next.length;
    content += content_length(end_block);
    ++end_block;
  }
  const WorkspacePool::Lease workspace = cache_->workspaces().take();
  const std::span<std::byte> stored = workspace->stored(end - start);
  OBD_TRY(read_exactly(*stored_, stored, start));
  size_t done = 0;
  for (uint64_t block = first; block < end_block; ++block) {
    const ByteRange place = table_.find(block);
    OBD_TRY(decompress(block, stored.subspan(place.offset - start, place.length),
                       out.subspan(done, content_length(block)), workspace->decompressor));
    done += content_length(block);
  }
  return content;
}

Result<void> ZfileReader::decompress(uint64_t block, std::span<const std::byte> stored,
                                     std::span<std::byte> out, Decompressor& decompressor) const {
  const auto damaged = [&](const Error& error) {
    return fail(error.code, "{}: zfile block {} (bytes {} to {} of the layer): {}", path(), block,
                block * header_.block_size, block * header_.block_size + out.size(), error.message);
  };
  if (header_.checksums) {
    const size_t size = stored.size() - zfile::kChecksumSize;
    const auto checksum = load_le<uint32_t>(stored.last<zfile::kChecksumSize>());
    stored = stored.first(size);
    if (const uint32_t own = zfile::block_checksum(stored); own != checksum) {
      return damaged({EBADMSG, fmt::format("checksum {:#010x} should be {:#010x}: the file is "
                                           "damaged; restore it from a good copy",
                                           own, checksum)});
    }
  }
  auto result = decompressor.decompress(container_.compression, stored, out);
  if (!result) return damaged(result.error());
  return {};
}

void ZfileReader::prefetch(ByteRange range) const {
  if (range.offset >= size() || range.length == 0) return;
  const uint64_t last_byte = range.offset + std::min(range.length, size() - range.offset) - 1;
  const uint64_t start = table_.find(range.offset / header_.block_size).offset;
  const ByteRange last = table_.find(last_byte / header_.block_size);
  stored_->prefetch({start, last.offset + last.length - start});
}

bool ZfileReader::is_near(uint64_t offset) const {
  if (offset >= size()) return true;
  const uint64_t block = offset / header_.block_size;
  return cache_->find({cache_id_, block}) || stored_->is_near(table_.find(block).offset);
}

}  // namespace obd
