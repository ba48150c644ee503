#include "core/layer/sealed_layer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/format/foreign.h"
#include "core/zfile/open_blob.h"

namespace obd {
namespace {

// What overlaybd reads of an index log; its sealed layers have a million at most.
constexpr uint64_t kMaxIndexSize = 128'000'000;
// Of a layer that is compressed. The most regular index there can be takes 0.7 bytes an entry,
// whatever the compressor; only padding, which is dropped, takes less.
constexpr uint64_t kEntriesPerStoredByte = 2;
constexpr uint64_t kEntriesOfAnyFile = 65536;
constexpr size_t kEntriesPerRead = 16384;  // 256 KiB

Result<lsmt::Header> read_block(const Blob& blob, uint64_t offset, const char* part) {
  std::array<std::byte, lsmt::kHeaderSize> bytes{};
  OBD_TRY(read_exactly(blob, bytes, offset));
  return lsmt::decode_header(bytes, blob.path() + ": " + part);
}

// `stored`: how many bytes the layer's file has.
Result<void> check_trailer(const lsmt::Header& trailer, uint64_t trailer_offset, uint64_t stored,
                           const std::string& path) {
  if (trailer.is_header() || !trailer.is_data() || !trailer.is_sealed()) {
    return fail(EINVAL, "{}: trailer: flags {:#x} are not those of a sealed layer", path,
                trailer.flags);
  }
  if (trailer.index_offset < lsmt::kHeaderSize || trailer.index_offset > trailer_offset ||
      !is_aligned(trailer.index_offset, kSectorSize)) {
    return fail(EINVAL,
                "{}: trailer: index_offset {} is not a multiple of {} between {} and the "
                "trailer at {}",
                path, trailer.index_offset, kSectorSize, lsmt::kHeaderSize, trailer_offset);
  }
  if (trailer.index_size > kMaxIndexSize) {
    return fail(EINVAL, "{}: trailer: index_size {} is more than the {} entries that are read",
                path, trailer.index_size, kMaxIndexSize);
  }
  const uint64_t most = (trailer_offset - trailer.index_offset) / lsmt::kEntrySize;
  if (trailer.index_size > most) {
    return fail(EINVAL,
                "{}: trailer: index_size {} is more than the {} entries that the file has "
                "room for",
                path, trailer.index_size, most);
  }
  // A small file can hold gigabytes of padding.
  if (trailer.index_size > kEntriesOfAnyFile &&
      (trailer.index_size - kEntriesOfAnyFile) / kEntriesPerStoredByte > stored) {
    return fail(EINVAL,
                "{}: trailer: index_size {} is more entries than a compressed file of {} bytes can "
                "hold, unless they are padding",
                path, trailer.index_size, stored);
  }
  return {};
}

// What people take for a layer, told apart from a damaged one.
Result<void> refuse_other_files(const Blob& blob) {
  std::array<std::byte, lsmt::kHeaderSize> start{};
  OBD_TRY_ASSIGN(const size_t got, blob.read_at(start, 0));
  const std::string& path = blob.path();
  if (got == 0) return fail(EINVAL, "{}: is empty: 0 bytes are no layer", path);
  if (const char* format = foreign_format(std::span(start).first(got))) {
    return fail(EINVAL,
                "{}: is {}, not a layer: make it a raw disk (qemu-img convert -O raw) and that a "
                "layer (obd import)",
                path, format);
  }
  if (got < start.size()) return {};
  const auto header = lsmt::decode_header(start, path);
  if (!header || !header->is_header()) return {};
  if (!header->is_data()) {
    return fail(EINVAL,
                "{}: header: flags {:#x} are those of the index of a writable layer: name its "
                "image's config instead",
                path, header->flags);
  }
  if (header->is_sealed()) return {};
  // One that was sealed in place kept its header.
  std::array<std::byte, lsmt::kHeaderSize> end{};
  if (blob.size() >= 2 * lsmt::kHeaderSize) {
    OBD_TRY(read_exactly(blob, end, blob.size() - lsmt::kHeaderSize));
  }
  if (lsmt::has_magic(end)) return {};
  return fail(
      EINVAL,
      "{}: {} bytes without a trailer at the end, whose magic number is missing: either the "
      "data file of a writable layer, whose image's config is to be named instead, or a "
      "sealed layer that was cut off",
      path, blob.size());
}

}  // namespace

Result<std::unique_ptr<SealedLayer>> SealedLayer::open(FileSystem& fs, const std::string& path,
                                                       std::shared_ptr<BlockCache> cache) {
  OBD_TRY_ASSIGN(auto file, fs.open(path, Access::read_only));
  return open(std::move(file), std::move(cache));
}

Result<std::unique_ptr<SealedLayer>> SealedLayer::open(std::unique_ptr<File> file,
                                                       std::shared_ptr<BlockCache> cache) {
  std::unique_ptr<SealedLayer> layer(new SealedLayer);
  OBD_TRY_ASSIGN(layer->blob_, open_blob(std::move(file), std::move(cache)));
  const std::string& path = layer->path();
  const Blob& blob = *layer->blob_;
  OBD_TRY(refuse_other_files(blob));
  if (blob.size() < 2 * lsmt::kHeaderSize) {
    return fail(EINVAL,
                "{}: {} bytes are too few for an LSMT layer, which has a header and a trailer "
                "of {} each",
                path, blob.size(), lsmt::kHeaderSize);
  }
  OBD_TRY_ASSIGN(const lsmt::Header header, read_block(blob, 0, "header"));
  if (!header.is_header() || !header.is_data()) {
    return fail(EINVAL, "{}: header: flags {:#x} are not those of a layer's data file", path,
                header.flags);
  }
  const uint64_t trailer_offset = blob.size() - lsmt::kHeaderSize;
  OBD_TRY_ASSIGN(layer->trailer_, read_block(blob, trailer_offset, "trailer"));
  OBD_TRY_ASSIGN(const FileInfo info, blob.file().info());
  OBD_TRY(check_trailer(layer->trailer_, trailer_offset, info.size, path));
  if (const uint32_t unknown = (header.flags | layer->trailer_.flags) & ~lsmt::kKnownFlags) {
    layer->warnings_.push_back(
        fmt::format("{}: header and trailer flags have the unknown bits {:#x}", path, unknown));
  }
  OBD_TRY_ASSIGN(Index index, layer->read_index());
  layer->sum_up(index);
  const MutexLock guard(layer->mutex_);
  layer->index_ = std::move(index);
  return layer;
}

Result<SealedLayer::Index> SealedLayer::read_index() const {
  const Sectors data_end = Sectors::floor(trailer_.index_offset);
  Index index;
  // No more of a number in the file than this is believed: beyond it, memory follows what is really
  // there.
  index.reserve(std::min(trailer_.index_size, lsmt::kMaxUpstreamEntries));
  Sectors previous_end;
  for (uint64_t number = 0; number < trailer_.index_size;) {
    const uint64_t count = std::min<uint64_t>(kEntriesPerRead, trailer_.index_size - number);
    size_t kept = index.size();
    index.resize(kept + count);
    const std::span<lsmt::PackedEntry> entries = std::span(index).last(count);
    OBD_TRY(read_exactly(*blob_, std::as_writable_bytes(entries),
                         trailer_.index_offset + number * lsmt::kEntrySize));
    lsmt::decode_entries(entries);
    for (const lsmt::PackedEntry& entry : entries) {
      if (!entry.is_invalid()) {
        const Sectors physical_end =
            entry.zeroed() ? entry.physical() : entry.physical() + entry.length();
        if (entry.length() == Sectors() || entry.offset() < previous_end ||
            entry.physical() < lsmt::kFirstDataSector || physical_end > data_end) {
          return refuse_entry(number, entry, previous_end, data_end);
        }
        previous_end = entry.end();
        index[kept++] = entry;
      }
      ++number;
    }
    index.resize(kept);
  }
  return index;
}

// What is wrong with the first entry that read_index() cannot take.
std::unexpected<Error> SealedLayer::refuse_entry(uint64_t number, const lsmt::PackedEntry& entry,
                                                 Sectors previous_end, Sectors data_end) const {
  if (entry.length() == Sectors()) {
    return fail(EINVAL, "{}: index entry {}: length is 0", path(), number);
  }
  if (entry.offset() < previous_end) {
    return fail(EINVAL,
                "{}: index entry {}: offset {} lies before the end {} of the entry before: "
                "the index is out of order or overlaps",
                path(), number, entry.offset().count(), previous_end.count());
  }
  return fail(EINVAL,
              "{}: index entry {}: moffset {} with length {} is not within the data area, "
              "sectors {} to {}",
              path(), number, entry.physical().count(), entry.length().count(),
              lsmt::kFirstDataSector.count(), data_end.count());
}

void SealedLayer::sum_up(const Index& index) {
  extent_count_ = index.size();
  for (const lsmt::PackedEntry& entry : index) {
    (entry.zeroed() ? zero_sectors_ : data_sectors_) += entry.length();
  }
  if (!index.empty()) end_ = index.back().end();
  if (extent_count_ > lsmt::kMaxUpstreamEntries) {
    warnings_.push_back(
        fmt::format("{}: {} index entries are more than the {} that overlaybd opens", path(),
                    extent_count_, lsmt::kMaxUpstreamEntries));
  }
  if (trailer_.virtual_size != 0 && end_.bytes() > trailer_.virtual_size) {
    warnings_.push_back(fmt::format(
        "{}: the index reaches to byte {}, past the virtual_size {}; what lies past the end of the "
        "image's disk is not served",
        path(), end_.bytes(), trailer_.virtual_size));
  }
}

Result<SealedLayer::Index> SealedLayer::take_index() const {
  {
    const MutexLock guard(mutex_);
    if (index_) return *std::exchange(index_, std::nullopt);
  }
  return read_index();
}

}  // namespace obd
