#include "core/layer/index_log.h"

#include <algorithm>
#include <array>
#include <vector>

#include "core/base/checksum.h"

namespace obd {
namespace {

constexpr size_t kEntriesPerWrite = 64;
constexpr size_t kMostBytesPerWrite = kEntriesPerWrite * lsmt::kEntrySize;

lsmt::Marker make_marker(lsmt::MarkerKind kind, uint32_t distance, uint32_t covered_crc) {
  lsmt::Marker marker;
  marker.kind = kind;
  marker.distance = distance;
  marker.check = lsmt::marker_check(covered_crc, kind, distance);
  return marker;
}

}  // namespace

lsmt::Entry to_entry(const Extent& extent) {
  lsmt::Entry entry;
  entry.offset = extent.logical;
  entry.length = extent.length;
  entry.zeroed = extent.kind == ExtentKind::zero;
  // A zero extent has no bytes, but readers of the format want an offset within the data area.
  entry.physical = entry.zeroed ? lsmt::kFirstDataSector : extent.physical;
  return entry;
}

IndexLog::IndexLog(std::unique_ptr<File> file, Position end)
    : file_(std::move(file)),
      end_(end),
      after_last_marker_(end.records),
      filled_(lsmt::kHeaderSize + end.records * lsmt::kEntrySize) {}

Result<IndexLog::Draft> IndexLog::begin_draft(FileSystem& fs, const std::string& path,
                                              const lsmt::Header& header, bool sparse,
                                              const FileInfo& like) {
  Draft draft;
  // A name of its own: whatever else bears a fixed one need not be ours to replace.
  draft.temporary_path = path + ".tmp-" + Uuid::random().text().substr(0, 8);
  OBD_TRY_ASSIGN(auto file, fs.create(draft.temporary_path, 0600));
  draft.log = std::make_unique<IndexLog>(std::move(file), Position{});
  lsmt::Header log_header = header;
  log_header.flags = lsmt::kFlagHeader | (sparse ? lsmt::kFlagSparse : 0u);
  log_header.index_offset = lsmt::kHeaderSize;
  log_header.index_size = 0;
  log_header.has_log = false;
  const auto write_header = [&]() -> Result<void> {
    OBD_TRY(draft.log->file_->set_owner_and_mode(like.owner, like.group, like.mode));
    return draft.log->file_->write_at(lsmt::encode_header(log_header), 0);
  };
  if (auto written = write_header(); !written) {
    discard(fs, std::move(draft));
    return std::unexpected<Error>(std::move(written).error());
  }
  return draft;
}

void IndexLog::discard(FileSystem& fs, Draft draft) {
  draft.log.reset();
  (void)fs.remove(draft.temporary_path);
}

Result<IndexLog::Draft> IndexLog::prepare(FileSystem& fs, const std::string& path,
                                          const lsmt::Header& header, const LiveIndex& index,
                                          std::optional<uint64_t> pending_update, bool sparse,
                                          const FileInfo& like) {
  OBD_TRY_ASSIGN(Draft draft, begin_draft(fs, path, header, sparse, like));
  IndexLog& log = *draft.log;
  const auto append_all = [&]() -> Result<void> {
    std::array<Extent, kEntriesPerWrite> extents;
    std::array<lsmt::Entry, kEntriesPerWrite> entries;
    Sectors from;
    for (;;) {
      const size_t count = index.find(from, lsmt::kAddressableEnd, extents);
      std::transform(extents.begin(), extents.begin() + static_cast<ptrdiff_t>(count),
                     entries.begin(), to_entry);
      OBD_TRY(log.append(std::span(entries).first(count)));
      if (count < extents.size()) break;
      from = extents[count - 1].end();
    }
    if (pending_update) {
      OBD_TRY(log.append_update(lsmt::MarkerKind::update_begun, *pending_update));
    }
    OBD_TRY(log.append_marker(lsmt::MarkerKind::close, log.position()));
    return log.sync();
  };
  if (auto appended = append_all(); !appended) {
    discard(fs, std::move(draft));
    return std::unexpected<Error>(std::move(appended).error());
  }
  return draft;
}

Result<std::unique_ptr<IndexLog>> IndexLog::install(FileSystem& fs, const std::string& path,
                                                    Draft draft) {
  if (auto renamed = fs.rename(draft.temporary_path, path); !renamed) {
    discard(fs, std::move(draft));
    return std::unexpected<Error>(std::move(renamed).error());
  }
  OBD_TRY(fs.sync_directory(directory_of(path)));
  return under_its_name(fs, path, std::move(draft));
}

std::unique_ptr<IndexLog> IndexLog::under_its_name(FileSystem& fs, const std::string& path,
                                                   Draft draft) {
  auto file = fs.open(path, Access::read_write);
  if (!file) return std::move(draft.log);
  return std::make_unique<IndexLog>(std::move(*file), draft.log->position());
}

// Writes records, with padding for the rest of the block that they begin where the caller allows
// it.
Result<void> IndexLog::write_records(std::span<const std::byte> bytes, uint64_t offset,
                                     bool padded_to_block) {
  const uint64_t end = offset + bytes.size();
  if (end <= filled_ || !padded_to_block) {
    OBD_TRY(file_->write_at(bytes, offset));
    filled_ = std::max(filled_, end);
    return {};
  }
  std::array<std::byte, kMostBytesPerWrite + kBlockSize> padded;
  const uint64_t filled = align_up(end, kBlockSize);
  const std::span<std::byte> whole = std::span(padded).first(filled - offset);
  std::copy(bytes.begin(), bytes.end(), whole.begin());
  for (size_t at = bytes.size(); at < whole.size(); at += lsmt::kEntrySize) {
    lsmt::encode_entry(lsmt::kPadding,
                       std::span<std::byte, lsmt::kEntrySize>(&whole[at], lsmt::kEntrySize));
  }
  OBD_TRY(file_->write_at(whole, offset));
  filled_ = filled;
  return {};
}

Result<void> IndexLog::append_bytes(std::span<const std::byte> bytes, uint64_t changes,
                                    bool padded_to_block) {
  if (broken_) {
    return fail(EIO, "{}: an earlier append failed and could not be undone; open the image again",
                file_->path());
  }
  const uint64_t offset = lsmt::kHeaderSize + end_.records * lsmt::kEntrySize;
  if (auto written = write_records(bytes, offset, padded_to_block); !written) {
    // Whatever part of the records is there must not be found by a later reader behind
    // newer ones.
    broken_ = !file_->truncate(offset);
    filled_ = offset;
    return written;
  }
  end_.records += bytes.size() / lsmt::kEntrySize;
  end_.changes += changes;
  end_.crc = crc32c(end_.crc, bytes);
  return {};
}

Result<void> IndexLog::append(std::span<const lsmt::Entry> mappings) {
  std::array<std::byte, kMostBytesPerWrite> bytes;
  while (!mappings.empty()) {
    const size_t count = std::min(mappings.size(), kEntriesPerWrite);
    for (size_t i = 0; i < count; ++i) {
      lsmt::encode_entry(mappings[i], std::span<std::byte, lsmt::kEntrySize>(
                                          &bytes[i * lsmt::kEntrySize], lsmt::kEntrySize));
    }
    OBD_TRY(append_bytes(std::span(bytes).first(count * lsmt::kEntrySize), count));
    mappings = mappings.subspan(count);
  }
  return {};
}

Result<void> IndexLog::append_session(uint64_t boot_hash) {
  std::array<std::byte, lsmt::kEntrySize> bytes;
  lsmt::encode_marker({.kind = lsmt::MarkerKind::session, .hash = boot_hash}, bytes);
  return append_bytes(bytes, 0, false);
}

Result<void> IndexLog::append_update(lsmt::MarkerKind kind, uint64_t hash) {
  std::array<std::byte, lsmt::kEntrySize> bytes;
  lsmt::encode_marker({.kind = kind, .hash = hash}, bytes);
  return append_bytes(bytes, 1);
}

void IndexLog::distrust(const Position& covered) {
  if (append_marker(lsmt::MarkerKind::distrust, covered)) return;
  // A full host can still take a record over an old one. The newest is not to be believed anyway,
  // unless it is the marker that vouches for what is.
  if (end_.records == 0 || end_.records == after_last_marker_) return;
  const uint64_t last = end_.records - 1;
  const uint64_t distance = std::min(last - covered.records, lsmt::kMaxDistance);
  std::array<std::byte, lsmt::kEntrySize> bytes;
  lsmt::encode_marker(
      make_marker(lsmt::MarkerKind::distrust, static_cast<uint32_t>(distance), covered.crc), bytes);
  // If even this fails, there is nothing more that can be written down.
  (void)file_->write_at(bytes, lsmt::kHeaderSize + last * lsmt::kEntrySize);
}

Result<void> IndexLog::append_marker(lsmt::MarkerKind kind, const Position& covered) {
  uint64_t distance = end_.records - covered.records;
  // A distrust marker whose reach is not the covered prefix fails its check, and a reader then
  // believes committed records only, which is what it is for.
  if (kind == lsmt::MarkerKind::distrust) distance = std::min(distance, lsmt::kMaxDistance);
  if (distance > lsmt::kMaxDistance) {
    return fail(EAGAIN, "{}: {} records were appended during one sync, more than a marker can span",
                file_->path(), distance);
  }
  std::array<std::byte, lsmt::kEntrySize> bytes;
  lsmt::encode_marker(make_marker(kind, static_cast<uint32_t>(distance), covered.crc), bytes);
  // A distrust marker may be the first after a close marker: no padding there.
  OBD_TRY(append_bytes(bytes, 0, kind == lsmt::MarkerKind::commit));
  after_last_marker_ = end_.records;
  if (kind != lsmt::MarkerKind::close) return {};
  filled_ = lsmt::kHeaderSize + end_.records * lsmt::kEntrySize;
  auto cut = file_->truncate(filled_);
  // What came after a close marker would count as overlaybd's.
  broken_ = broken_ || !cut;
  return cut;
}

}  // namespace obd
