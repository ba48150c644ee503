// Space reclaim while requests are served.
//
// Dead space of an append layer. The live index gives every extent that a record covers to
// AppendSpace, under the lock under which the record went into the log. When may such a block be
// used for other data, or punched?
//
//   - Not before the record that killed it is stable: after a power cut the log may end before that
//     record, and an older one then names the block. begin_ripening() notes how many changes the
//     log had; when a flush has made these stable, the records that killed what is ripening are
//     among them, and every log that a crash can leave holds them.
//   - Not before the readers are gone who looked up the block before it died: the caller sees to
//     that between begin_ripening() and end_ripening().
//
// A record that names a block that is used again comes after the record that killed its first
// content in every log, and its payload was written before it: it is as a record that names new
// space. No step moves or cuts what a live record names.
//
// Cleaning. The live rest of a region is copied to space that is free or new, and records name the
// copies, if the index still names the originals: that is decided under log_mutex_, so a write that
// came first wins. Nothing else tells the records from a client's writes of the same bytes, and the
// originals are dead as if overwritten. The blocks that are read stay what they are meanwhile,
// because only end_ripening(), which has the same caller, lets go of them.
//
// Checkpoint of the log. The draft gets a session marker, the extents of the live index, looked up
// piece by piece while the index changes, and then what the old log got since before the first
// look, up to what the flush round covers. Each of these records was applied to some pieces before
// they were looked up and to others not; applied in order once more they lead to the same mapping,
// because each decides about its whole range. Then, as the flush round that it is,
//
//   1. the data is synced, and the draft with a marker that covers all that the round covers
//   2. with log_mutex_ held, the draft gets what came after that, and is renamed over the old log
//   3. the folder is synced
//
// When the rename fails, the old log goes on if its name still leads to it, and else nothing does.
//
// A crash before the rename is stable leaves the old log: it holds every record that was ever
// promised, as no other round can end meanwhile, and every block that it names is still what it
// was, as nothing ripens meanwhile. After it the new log: what was promised is covered by its
// marker.

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "core/format/log_marker.h"
#include "core/layer/writable_layer.h"

namespace obd {
namespace {

constexpr size_t kMostPunches = 256;  // of one punch()
constexpr size_t kPartsPerMove = 64;
constexpr size_t kRecordsPerCopy = 1024;

bool is_before(const SectorRange& range, Sectors at) { return range.to <= at; }

}  // namespace

// Sectors of the disk that move within the data file.
struct WritableLayer::Part {
  Sectors logical, length, from, to;
};

// Begins to keep track of the space of an append layer; nobody writes yet.
Result<void> WritableLayer::track_space() {
  if (!options_.reclaim) return {};
  OBD_TRY_ASSIGN(const FileInfo info, data_->info());
  space_.reset(Sectors::floor(align_up(std::max(info.size, lsmt::kHeaderSize), kBlockSize)));
  const LiveIndex& index = index_at_rest();
  live_bytes_ = index.data_sectors().bytes();
  survey_from_ = Sectors();
  // Where another writer's records name the same bytes twice, nothing is reclaimed: overwriting one
  // does not kill what the other names.
  (void)space_.track(options_.region_blocks, info.allocated, [&](const AppendSpace::AddLive& add) {
    std::array<Extent, 256> found;
    for (Sectors from;;) {
      const size_t count = index.find(from, lsmt::kAddressableEnd, found);
      for (const Extent& extent : std::span(found).first(count)) {
        if (extent.kind == ExtentKind::data) add(extent.physical, extent.physical + extent.length);
      }
      if (count < found.size()) return;
      from = found.back().end();
    }
  });
  return {};
}

Result<bool> WritableLayer::may_reclaim() const {
  OBD_TRY(check_usable());
  if (!session_ready_) return false;
  if (kind_ == UpperKind::append && !space_.is_tracking()) return false;
  OBD_TRY_ASSIGN(const FileInfo data, data_->info());
  const MutexLock log_lock(log_mutex_);
  OBD_TRY_ASSIGN(const FileInfo index, log_->file().info());
  return data.links == 1 && index.links == 1;
}

uint64_t WritableLayer::index_extents() const {
  const ReaderLock index_lock(index_mutex_);
  return index_.extent_count();
}

bool WritableLayer::begin_ripening() {
  const MutexLock log_lock(log_mutex_);
  ripening_changes_ = changes();
  return space_.begin_ripening();
}

Result<uint64_t> WritableLayer::punch(uint64_t shortest, uint64_t most) {
  OBD_TRY_ASSIGN(const FileInfo info, data_->info());
  const auto ranges =
      space_.take_for_punching(std::clamp(info.block_size, kBlockSize, AppendSpace::kLongestUnit),
                               shortest, most, kMostPunches);
  uint64_t bytes = 0;
  for (const SectorRange& range : ranges) {
    const uint64_t length = (range.to - range.from).bytes();
    // What the host does not take back can still be used again.
    const bool is_hole = data_->punch_hole({range.from.bytes(), length}).has_value();
    space_.punched(range, is_hole);
    if (is_hole) {
      bytes += length;
    } else {
      ++failed_punches_;
    }
  }
  punched_bytes_ += bytes;
  return bytes;
}

Result<bool> WritableLayer::survey() {
  if (!space_.needs_survey() || !survey_from_) return true;
  OBD_TRY_ASSIGN(
      survey_from_,
      space_.survey(*survey_from_, [&](Sectors from) -> Result<std::optional<SectorRange>> {
        OBD_TRY_ASSIGN(const auto run, data_->next_data(from.bytes()));
        if (!run) return std::nullopt;
        return SectorRange{Sectors::floor(run->offset), Sectors::ceil(run->offset + run->length)};
      }));
  return !survey_from_;
}

Result<uint64_t> WritableLayer::clean(uint64_t most) {
  OBD_TRY(check_usable());
  const std::vector<SectorRange> regions = space_.take_for_cleaning(most);
  if (regions.empty()) return 0;
  struct Release {
    AppendSpace& space;
    const std::vector<SectorRange>& regions;
    ~Release() { space.release_cleaned(regions); }
  } const release{space_, regions};

  std::vector<Part> parts;
  const auto add_parts = [&](const Extent& extent) {
    const Sectors end = extent.physical + extent.length;
    for (auto region = std::ranges::partition_point(
             regions, [&](const SectorRange& r) { return is_before(r, extent.physical); });
         region != regions.end() && region->from < end; ++region) {
      const Sectors from = std::max(extent.physical, region->from);
      const Sectors to = std::min(end, region->to);
      for (Sectors at = from; at < to;) {
        const Sectors length = std::min(Sectors::floor(AppendSpace::kLongestRange), to - at);
        parts.push_back({extent.logical + (at - extent.physical), length, at, Sectors()});
        at += length;
      }
    }
  };
  std::array<Extent, 256> found;
  for (Sectors from;;) {
    size_t count = 0;
    {
      const ReaderLock index_lock(index_mutex_);
      count = index_.find(from, lsmt::kAddressableEnd, found);
    }
    for (const Extent& extent : std::span(found).first(count)) {
      if (extent.kind == ExtentKind::data) add_parts(extent);
    }
    if (count < found.size()) break;
    from = found.back().end();
  }

  std::vector<std::byte> buffer(AppendSpace::kLongestRange);
  uint64_t moved = 0;
  for (size_t begin = 0; begin < parts.size();) {
    size_t end = begin;
    uint64_t bytes = 0;
    while (end < parts.size() && end - begin < kPartsPerMove &&
           bytes + parts[end].length.bytes() <= buffer.size()) {
      bytes += parts[end++].length.bytes();
    }
    OBD_TRY(move_parts(std::span(parts).subspan(begin, end - begin), buffer));
    moved += bytes;
    begin = end;
  }
  moved_bytes_ += moved;
  return moved;
}

// Copies the parts, which fit into the buffer together, and records where they are.
Result<void> WritableLayer::move_parts(std::span<Part> parts, std::vector<std::byte>& buffer) {
  size_t allocated = 0;
  const auto copy = [&]() -> Result<void> {
    size_t filled = 0;   // bytes of the buffer
    size_t pending = 0;  // of these, not written yet: for where pending_to says
    Sectors pending_to;
    const auto write_pending = [&]() -> Result<void> {
      const auto bytes = std::span(buffer).subspan(filled - pending, pending);
      pending = 0;
      return bytes.empty() ? Result<void>() : data_->write_at(bytes, pending_to.bytes());
    };
    for (Part& part : parts) {
      OBD_TRY_ASSIGN(part.to,
                     space_.allocate(part.logical, part.length, options_.max_size, data_->path()));
      ++allocated;
      if (pending_to + Sectors::floor(pending) != part.to) {
        OBD_TRY(write_pending());
        pending_to = part.to;
      }
      OBD_TRY(read_exactly(*data_, std::span(buffer).subspan(filled, part.length.bytes()),
                           part.from.bytes()));
      filled += part.length.bytes();
      pending += part.length.bytes();
    }
    OBD_TRY(write_pending());
    data_dirty_ = true;
    return give_up_if_log_broke(record_moves(parts));
  };
  auto copied = copy();
  if (!copied && !failed_) {
    // The last first, so that the file is cut where it ended.
    for (; allocated > 0; --allocated)
      release(parts[allocated - 1].to, parts[allocated - 1].length);
  }
  return copied;
}

// Lets the index name the copies, as far as it names the originals still.
Result<void> WritableLayer::record_moves(std::span<const Part> parts) {
  const MutexLock log_lock(log_mutex_);
  OBD_TRY(check_usable());
  std::vector<lsmt::Entry> entries;
  std::vector<SectorRange> unused;
  for (const Part& part : parts) {
    const auto place = [&](Sectors logical) { return part.to + (logical - part.logical); };
    Sectors done = part.logical;  // up to here it is decided
    const auto unused_until = [&](Sectors end) {
      if (done < end) unused.push_back({place(done), place(end)});
      done = end;
    };
    const Sectors end = part.logical + part.length;
    std::array<Extent, 32> found;
    for (Sectors from = part.logical; from < end;) {
      const size_t count = index_for_change().find(from, end, found);
      for (const Extent& extent : std::span(found).first(count)) {
        const Sectors original = part.from + (extent.logical - part.logical);
        if (extent.kind != ExtentKind::data || extent.physical != original) continue;
        unused_until(extent.logical);
        entries.push_back({extent.logical, extent.length, place(extent.logical), false});
        done = extent.end();
      }
      from = count < found.size() ? end : found.back().end();
    }
    unused_until(end);
  }
  reserve_index(entries.size());
  OBD_TRY(log_->append(entries));
  log_bytes_ += entries.size() * lsmt::kEntrySize;
  for (const lsmt::Entry& entry : entries) {
    put({entry.offset, entry.length, entry.physical, ExtentKind::data, kUpperLayer});
  }
  for (const SectorRange& range : unused) space_.kill(range.from, range.to - range.from);
  return {};
}

Result<void> WritableLayer::checkpoint_log(uint64_t small) {
  OBD_TRY(check_usable());
  IndexLog::Position begin;
  {
    const MutexLock log_lock(log_mutex_);
    const ReaderLock index_lock(index_mutex_);
    begin = log_->position();
    const uint64_t live = index_.extent_count();
    if (begin.records <= small || begin.records - std::min(begin.records, live) <= live) {
      return {};
    }
  }
  OBD_TRY_ASSIGN(
      IndexLog::Draft draft,
      IndexLog::begin_draft(fs_, index_path_, header_, kind_ == UpperKind::sparse, index_info_));
  uint64_t copied = begin.records;
  auto replaced = draft_log(*draft.log);
  if (replaced) {
    // Most of the draft reaches the device before the round, in which others wait.
    replaced = draft.log->sync();
  }
  if (replaced) {
    replaced = flushes_.run([&] { return switch_log(draft, copied); });
  }
  if (!replaced && draft.log) IndexLog::discard(fs_, std::move(draft));
  if (replaced) ++checkpoints_;
  return replaced;
}

// A session of this boot, and the extents of the index.
Result<void> WritableLayer::draft_log(IndexLog& draft) {
  OBD_TRY(draft.append_session(boot_hash_));
  std::array<Extent, 256> found;
  std::vector<lsmt::Entry> entries;
  for (Sectors from;;) {
    size_t count = 0;
    {
      const ReaderLock index_lock(index_mutex_);
      count = index_.find(from, lsmt::kAddressableEnd, found);
    }
    entries.clear();
    for (const Extent& extent : std::span(found).first(count)) entries.push_back(to_entry(extent));
    OBD_TRY(draft.append(entries));
    if (count < found.size()) return {};
    from = found.back().end();
  }
}

// Appends the mappings among the log's records [from, to) to the draft.
Result<void> WritableLayer::append_from_log(const File& log, IndexLog& draft, uint64_t& from,
                                            uint64_t to) {
  std::vector<std::byte> bytes;
  std::vector<lsmt::Entry> entries;
  while (from < to) {
    const size_t count = static_cast<size_t>(std::min<uint64_t>(kRecordsPerCopy, to - from));
    bytes.resize(count * lsmt::kEntrySize);
    OBD_TRY(read_exactly(log, bytes, lsmt::kHeaderSize + from * lsmt::kEntrySize));
    entries.clear();
    for (size_t i = 0; i < count; ++i) {
      const std::span<const std::byte, lsmt::kEntrySize> record(&bytes[i * lsmt::kEntrySize],
                                                                lsmt::kEntrySize);
      if (lsmt::decode_marker(record)) continue;
      entries.push_back(lsmt::decode_entry(record));
    }
    OBD_TRY(draft.append(entries));
    from += count;
  }
  return {};
}

// Whether the log's name still leads to the log that takes the changes.
bool WritableLayer::is_log_in_place() const {
  const auto named = fs_.open(index_path_, Access::read_only);
  if (!named) return false;
  const auto there = (*named)->info();
  const auto ours = log_->file().info();
  return there && ours && there->device == ours->device && there->inode == ours->inode;
}

// A flush round that ends with another log.
Result<void> WritableLayer::switch_log(IndexLog::Draft& draft, uint64_t& copied) {
  OBD_TRY(check_usable());
  IndexLog& log = *draft.log;
  uint64_t covered_records = 0, covered_changes = 0;
  const File* old = nullptr;  // stays until this round replaces it
  {
    const MutexLock log_lock(log_mutex_);
    old = &log_->file();
    covered_records = log_->position().records;
    covered_changes = changes();
  }
  OBD_TRY(sync_data());
  OBD_TRY(append_from_log(*old, log, copied, covered_records));
  const IndexLog::Position covered = log.position();
  OBD_TRY(log.append_marker(lsmt::MarkerKind::commit, covered));
  ++syncs_;
  OBD_TRY(log.sync());
  {
    const MutexLock log_lock(log_mutex_);
    OBD_TRY(append_from_log(*old, log, copied, log_->position().records));
    if (auto renamed = fs_.rename(draft.temporary_path, index_path_); !renamed) {
      if (is_log_in_place()) return renamed;
      // Changes that went to a log without a name would be lost with this process.
      return give_up_locked(std::move(renamed).error(), false);
    }
    const uint64_t changes_so_far = changes();
    log_ = IndexLog::under_its_name(fs_, index_path_, std::exchange(draft, {}));
    changes_before_log_ = changes_so_far - log_->position().changes;
    log_bytes_ = lsmt::kHeaderSize + log_->position().records * lsmt::kEntrySize;
    stable_ = covered;
  }
  // The old log, which a crash may bring back, does not get the newer records any more.
  ++syncs_;
  if (auto synced = fs_.sync_directory(directory_of(index_path_)); !synced) {
    return give_up(std::move(synced).error(), true);
  }
  stable_changes_ = covered_changes;
  stale_.became_stable(covered_changes);
  return {};
}

}  // namespace obd
