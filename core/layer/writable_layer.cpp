// The write side of a writable layer: writes, zeroes, flush, seal, close.
//
// States of a sector in this layer: hole, zero extent, data. write() moves it to data, zero() to
// zero extent; nothing moves it back to hole.
//
// Order within one write: the payload is written (page cache), then, under log_mutex_, the log
// record is written (page cache) and the live index changed. So
//   - a completed write is wholly in the page cache: the death of the process loses nothing;
//   - the order of the live index is the order of the log;
//   - a failed step leaves index and log as they were.
//
// Order within one flush round: the log's end is noted, the data file synced, a commit marker that
// reaches to the noted end appended, the log synced. Every record before the noted end was written
// after its payload, so the payload is stable before the marker exists. Records that other threads
// append meanwhile lie between the noted end and the marker, and do not count until the next one.
//
// In a sparse layer a write over what is data already needs no record: the mapping stands, and
// after a power cut each sector holds the old or the new bytes.
//
// Locks: session_mutex_, then log_mutex_, then index_mutex_. None of them is held across payload
// I/O; log_mutex_ is held across the 16-byte append.

#include "core/layer/writable_layer.h"

#include <algorithm>
#include <array>
#include <new>

namespace obd {
namespace {

constexpr size_t kRecordBatch = 64;
// Room made in the index at a time, so that most writes need not lock it for that.
constexpr size_t kReservedInserts = 8;
// Extents that are looked at for one hold of the layout lock.
constexpr size_t kPunchBatch = 256;
// A log within one block of the host is not worth rewriting.
constexpr uint64_t kSmallLogRecords = kBlockSize / lsmt::kEntrySize;

}  // namespace

Result<void> WritableLayer::check_usable() const {
  if (options_.access == Access::read_only) {
    return fail(EROFS, "{}: the layer is open read-only", data_->path());
  }
  if (sealed_in_place_) {
    return fail(EROFS, "{}: the layer is sealed", data_->path());
  }
  if (failed_) {
    return fail(
        EROFS,
        "{}: read-only until it is opened again, because a change could not be made safe ({})",
        data_->path(), failure_);
  }
  return {};
}

Result<void> WritableLayer::refuse_other_names(std::string_view what) const {
  OBD_TRY_ASSIGN(const FileInfo data, data_->info());
  OBD_TRY_ASSIGN(const auto index_file, fs_.open(index_path_, Access::read_only));
  OBD_TRY_ASSIGN(const FileInfo index, index_file->info());
  if (data.links <= 1 && index.links <= 1) return {};
  return fail(EMLINK,
              "{}: has {} names (hard links), and {} would ruin the image that uses another one: "
              "give each image files of its own (cp --reflink=auto), or make the next copy with "
              "obd clone",
              data.links > 1 ? data_->path() : index_path_, std::max(data.links, index.links),
              what);
}

size_t WritableLayer::find(Sectors from, Sectors to, std::span<Extent> out) const {
  const ReaderLock lock(index_mutex_);
  return index_.find(from, to, out);
}

bool WritableLayer::is_all(ExtentKind kind, Sectors from, Sectors to) const {
  const ReaderLock lock(index_mutex_);
  return index_.is_all(kind, from, to);
}

// What is left of Options::max_size for the data file.
uint64_t WritableLayer::data_budget() const {
  if (options_.max_size == 0) return 0;
  return std::max(kBlockSize, options_.max_size - std::min(options_.max_size, log_bytes_.load()));
}

Result<void> WritableLayer::check_room(uint64_t bytes) const {
  if (options_.max_size == 0) return {};
  OBD_TRY_ASSIGN(const FileInfo info, data_->info());
  if (info.allocated + bytes <= data_budget()) return {};
  return fail(ENOSPC,
              "{}: {} bytes more would exceed the {} that the writable layer may take "
              "(max-upper-size); it takes {}: delete something and trim, or allow more",
              data_->path(), bytes, options_.max_size, info.allocated + log_bytes_);
}

void WritableLayer::release(Sectors physical, Sectors length) {
  // The write's own error is the one to report; space that cannot be given back here is dead space.
  // Nobody records anything behind `end` meanwhile: no range is allocated behind the one that is
  // given back, and those before it end there.
  space_.give_back(physical, length, [&](Sectors end) {
    return end.bytes() >= recorded_end_ && data_->truncate(end.bytes()).has_value();
  });
}

Result<void> WritableLayer::record(std::span<const lsmt::Entry> entries) {
  while (!entries.empty()) {
    const auto batch = entries.first(std::min(entries.size(), kRecordBatch));
    OBD_TRY(give_up_if_log_broke(append_entries(batch)));
    entries = entries.subspan(batch.size());
  }
  return {};
}

Result<void> WritableLayer::append_entries(std::span<const lsmt::Entry> entries) {
  const MutexLock log_lock(log_mutex_);
  OBD_TRY(check_usable());
  reserve_index(entries.size());
  OBD_TRY(log_->append(entries));
  log_bytes_ += entries.size_bytes();
  for (const lsmt::Entry& entry : entries) {
    put({entry.offset, entry.length, entry.zeroed ? Sectors() : entry.physical,
         entry.zeroed ? ExtentKind::zero : ExtentKind::data, kUpperLayer});
  }
  return {};
}

// Makes sure that so many extents can be put into the index.
void WritableLayer::reserve_index(size_t inserts) {
  if (index_for_change().reserved_inserts() >= inserts) return;
  const WriterLock index_lock(index_mutex_);
  index_.reserve(std::max(inserts, kReservedInserts));
}

// Puts an extent into the index. What it covers is dead.
void WritableLayer::put(const Extent& extent) {
  if (kind_ == UpperKind::append && options_.reclaim) {
    std::array<Extent, 32> found;
    for (Sectors from = extent.logical; from < extent.end();) {
      const size_t count = index_for_change().find(from, extent.end(), found);
      for (const Extent& old : std::span(found).first(count)) {
        if (old.kind == ExtentKind::data) space_.kill(old.physical, old.length);
      }
      from = count < found.size() ? extent.end() : found.back().end();
    }
  }
  {
    const WriterLock index_lock(index_mutex_);
    index_.insert(extent);
  }
  live_bytes_ = index_for_change().data_sectors().bytes();
  if (kind_ == UpperKind::append && extent.kind == ExtentKind::data) {
    const uint64_t end = (extent.physical + extent.length).bytes();
    if (end > recorded_end_) recorded_end_ = end;
  }
}

Result<void> WritableLayer::write(Sectors logical, std::span<const std::byte> data) {
  if (kind_ == UpperKind::sparse) {
    OBD_TRY(write_in_place(logical.bytes(), data));
    return record_data(logical, logical + Sectors::floor(data.size()));
  }
  OBD_TRY(check_usable());
  OBD_TRY(ensure_session());
  while (!data.empty()) {
    const auto piece = data.first(std::min<size_t>(data.size(), AppendSpace::kLongestRange));
    OBD_TRY(write_piece(logical, piece));
    logical += Sectors::floor(piece.size());
    data = data.subspan(piece.size());
  }
  return {};
}

Result<void> WritableLayer::write_piece(Sectors logical, std::span<const std::byte> data) {
  const Sectors length = Sectors::floor(data.size());
  OBD_TRY_ASSIGN(const Sectors physical,
                 space_.allocate(logical, length, data_budget(), data_->path()));
  auto store = [&]() -> Result<void> {
    OBD_TRY(data_->write_at(data, physical.bytes()));
    data_dirty_ = true;
    const lsmt::Entry entry{logical, length, physical, false};
    return record(std::span(&entry, 1));
  };
  auto stored = store();
  // A record that may have stayed in a broken log names this space: it keeps the new bytes.
  if (!stored && !failed_) release(physical, length);
  return stored;
}

Result<void> WritableLayer::write_in_place(uint64_t offset, std::span<const std::byte> data) {
  OBD_TRY(check_usable());
  OBD_TRY(ensure_session());
  // Set on failure as well: part of the bytes may have been written.
  auto written = data_->write_at(data, lsmt::kHeaderSize + offset);
  data_dirty_ = true;
  return written;
}

Result<void> WritableLayer::record_data(Sectors from, Sectors to) {
  while (from < to) {
    const Sectors part = std::min(lsmt::kMaxAlignedLength, to - from);
    const lsmt::Entry entry{from, part, from + lsmt::kFirstDataSector, false};
    OBD_TRY(record(std::span(&entry, 1)));
    from += part;
  }
  return {};
}

Result<void> WritableLayer::zero(Sectors logical, Sectors length, bool below_is_zero) {
  OBD_TRY(check_usable());
  OBD_TRY(ensure_session());
  const Extent extent{logical, length, Sectors(), ExtentKind::zero, kUpperLayer};
  return give_up_if_log_broke(zero_unless_zero(extent, below_is_zero));
}

Result<void> WritableLayer::zero_unless_zero(const Extent& extent, bool below_is_zero) {
  const MutexLock log_lock(log_mutex_);
  OBD_TRY(check_usable());
  std::array<Extent, 16> found;
  const LiveIndex& index = index_for_change();
  const size_t count = index.find(extent.logical, extent.end(), found);
  const bool any_data = count == found.size() ||
                        std::any_of(found.begin(), found.begin() + static_cast<ptrdiff_t>(count),
                                    [](const Extent& e) { return e.kind == ExtentKind::data; });
  const bool zero_already =
      !any_data && (below_is_zero || index.is_all(ExtentKind::zero, extent.logical, extent.end()));
  if (zero_already) return {};
  reserve_index(1);
  const lsmt::Entry entry = to_entry(extent);
  OBD_TRY(log_->append(std::span(&entry, 1)));
  log_bytes_ += sizeof(entry);
  put(extent);
  if (kind_ == UpperKind::sparse) stale_.add({extent.logical, extent.end()}, changes());
  return {};
}

// Ends writing until the layer is opened again.
Result<void> WritableLayer::give_up(Error reason, bool sync_failed) {
  const MutexLock log_lock(log_mutex_);
  return give_up_locked(std::move(reason), sync_failed);
}

std::unexpected<Error> WritableLayer::give_up_locked(Error reason, bool sync_failed) {
  if (!failed_) {
    try {
      failure_ = reason.message;
    } catch (const std::bad_alloc&) {
      // Failing matters more than saying why.
    }
    failed_ = true;
    // So that the next open believes only what was stable before. Without a session nothing came
    // after that, and a log that waits to be rewritten must stay as it is: its end holds the marker
    // that vouches for the rest.
    if (sync_failed && log_ && scan_.session_open && !scan_.must_rewrite) log_->distrust(stable_);
  }
  return std::unexpected<Error>(std::move(reason));
}

// Newer records must not come to stand before the remains of a failed append.
Result<void> WritableLayer::give_up_if_log_broke(Result<void> appended) {
  if (appended) return appended;
  {
    const MutexLock log_lock(log_mutex_);
    if (!log_->broken()) return appended;
  }
  return give_up(std::move(appended).error(), false);
}

Result<void> WritableLayer::sync_data() {
  if (!data_dirty_.exchange(false)) return {};
  ++syncs_;
  if (auto synced = data_->sync(); !synced) return give_up(std::move(synced).error(), true);
  return {};
}

Result<void> WritableLayer::flush_round(lsmt::MarkerKind kind) {
  OBD_TRY(check_usable());
  IndexLog::Position covered;
  uint64_t covered_changes = 0;
  {
    const MutexLock log_lock(log_mutex_);
    covered = log_->position();
    covered_changes = changes();
  }
  OBD_TRY(sync_data());
  if (covered.changes == stable_.changes && kind == lsmt::MarkerKind::commit) return {};
  IndexLog* log = nullptr;  // stays: only a round replaces it
  const auto append_marker = [&]() -> Result<void> {
    const MutexLock log_lock(log_mutex_);
    OBD_TRY(log_->append_marker(kind, covered));
    log = log_.get();
    return {};
  };
  OBD_TRY(give_up_if_log_broke(append_marker()));
  ++syncs_;
  if (auto synced = log->sync(); !synced) return give_up(std::move(synced).error(), true);
  stable_ = covered;
  stable_changes_ = covered_changes;
  stale_.became_stable(covered_changes);
  return {};
}

// A count of the log's changes that goes on when the log is replaced.
uint64_t WritableLayer::changes() const {
  return changes_before_log_ + (log_ ? log_->position().changes : 0);
}

Result<void> WritableLayer::flush() {
  if (options_.access == Access::read_only) return {};
  OBD_TRY(check_usable());
  if (!session_ready_) {
    if (scan_.clean || scan_.foreign) {
      // No marker is missing, but the files may not have reached the device.
      const MutexLock lock(session_mutex_);
      return settle();
    }
    OBD_TRY(ensure_session());
  }
  return flushes_.run([this] { return flush_round(lsmt::MarkerKind::commit); });
}

Result<void> WritableLayer::mark_update(lsmt::MarkerKind kind, uint64_t hash) {
  OBD_TRY(check_usable());
  OBD_TRY(ensure_session());
  const auto append = [&]() -> Result<void> {
    const MutexLock log_lock(log_mutex_);
    return log_->append_update(kind, hash);
  };
  OBD_TRY(give_up_if_log_broke(append()));
  pending_update_.reset();
  if (kind == lsmt::MarkerKind::update_begun) pending_update_ = hash;
  return flush();
}

void WritableLayer::release_stale_space() {
  std::array<Extent, 64> found;
  size_t budget = kPunchBatch;
  for (SectorRange range : stale_.take_ready(kPunchBatch)) {
    while (range.from < range.to && budget > 0) {
      const size_t most = std::min(budget, found.size());
      const size_t count = find(range.from, range.to, std::span(found).first(most));
      for (const Extent& extent : std::span(found).first(count)) {
        if (extent.kind != ExtentKind::zero) continue;
        // Zeros are served from the index either way; a host that keeps the blocks costs space
        // only.
        if (!data_->punch_hole(
                {(extent.logical + lsmt::kFirstDataSector).bytes(), extent.length.bytes()})) {
          ++failed_punches_;
        }
      }
      budget -= count;
      range.from = count == most ? found[count - 1].end() : range.to;
    }
    if (range.from < range.to) stale_.put_back(range);
  }
}

Result<void> WritableLayer::seal() {
  if (sealed_in_place_) {
    const MutexLock lock(session_mutex_);
    return settle();
  }
  OBD_TRY(check_usable());
  OBD_TRY(refuse_other_names("sealing it"));
  OBD_TRY(ensure_session());
  OBD_TRY(flush());

  OBD_TRY_ASSIGN(const FileInfo info, data_->info());
  const uint64_t index_offset =
      kind_ == UpperKind::sparse ? lsmt::kHeaderSize + virtual_size_
                                 : std::max(space_.end().bytes(), align_up(info.size, kSectorSize));
  uint64_t offset = index_offset;
  const LiveIndex& index = index_at_rest();
  auto append_index = [&]() -> Result<void> {
    std::vector<std::byte> buffer;
    std::array<Extent, 512> extents;
    for (Sectors from;;) {
      const size_t count = index.find(from, lsmt::kAddressableEnd, extents);
      buffer.resize(count * lsmt::kEntrySize);
      for (size_t i = 0; i < count; ++i) {
        lsmt::encode_entry(to_entry(extents[i]),
                           std::span<std::byte, lsmt::kEntrySize>(&buffer[i * lsmt::kEntrySize],
                                                                  lsmt::kEntrySize));
      }
      OBD_TRY(data_->write_at(buffer, offset));
      offset += buffer.size();
      if (count < extents.size()) break;
      from = extents.back().end();
    }
    const std::vector<std::byte> padding(align_up(offset, kSectorSize) - offset);
    OBD_TRY(data_->write_at(padding, offset));
    offset += padding.size();

    // The trailer alone says that the layer is sealed, so all else is stable before it is there.
    ++syncs_;
    OBD_TRY(data_->sync());

    lsmt::Header trailer = header_;
    trailer.flags = lsmt::kFlagData | lsmt::kFlagSealed | (header_.flags & lsmt::kFlagSparse);
    trailer.index_offset = index_offset;
    trailer.index_size = index.extent_count();
    trailer.has_log = false;
    OBD_TRY(data_->write_at(lsmt::encode_header(trailer), offset));
    OBD_TRY(data_->truncate(offset + lsmt::kHeaderSize));
    if (header_.has_log) {
      // The mark is about a log that is to be removed; readers do not mind when a crash keeps it.
      lsmt::Header header = header_;
      header.has_log = false;
      const auto bytes = lsmt::encode_header(header);
      OBD_TRY(data_->write_at(std::span(bytes).first(kSectorSize), 0));
    }
    ++syncs_;
    return data_->sync();
  };
  if (auto appended = append_index(); !appended) {
    // Still a writable pair; what was appended is cut off again, or is dead space if that fails.
    (void)data_->truncate(std::max(info.size, lsmt::kHeaderSize));
    return give_up(std::move(appended).error(), false);
  }
  sealed_in_place_ = true;
  return {};
}

// Wants no call in flight that changes the index.
bool WritableLayer::log_is_mostly_dead() const {
  const uint64_t records = log_at_rest()->position().records;
  const uint64_t live = index_at_rest().extent_count();
  return records > kSmallLogRecords && records - live > live;
}

Result<void> WritableLayer::close() {
  if (options_.access == Access::read_only || sealed_in_place_) return {};
  OBD_TRY(check_usable());
  if (!session_ready_) {
    if (scan_.clean || scan_.foreign) return {};
    OBD_TRY(ensure_session());
  }
  if (log_is_mostly_dead()) {
    OBD_TRY(sync_data());
    return rewrite_log();
  }
  return flushes_.run([this] { return flush_round(lsmt::MarkerKind::close); });
}

WritableLayer::Stats WritableLayer::stats() const {
  Stats stats;
  {
    const ReaderLock lock(index_mutex_);
    stats.extents = index_.extent_count();
    stats.data = index_.data_sectors();
    stats.zero = index_.zero_sectors();
  }
  {
    const MutexLock lock(log_mutex_);
    stats.log_records = log_ ? log_->position().records : scan_.whole_records;
  }
  stats.log_dead_records = stats.log_records - std::min(stats.log_records, stats.extents);
  if (kind_ == UpperKind::append) {
    // Another writer's records may name the same bytes twice.
    const Sectors area = space_.end() - lsmt::kFirstDataSector;
    stats.dead_bytes = (area - std::min(area, stats.data)).bytes();
  }
  stats.syncs = syncs_;
  stats.failed_punches = failed_punches_;
  stats.punched_bytes = punched_bytes_;
  stats.moved_bytes = moved_bytes_;
  stats.checkpoints = checkpoints_;
  return stats;
}

}  // namespace obd
