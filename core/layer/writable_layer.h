// A writable layer: a data file and an index log, of one of two kinds.
//
//   append   data goes to the end of the data file, in the order of writing
//   sparse   data goes to its own place: byte 4096 + logical offset of a sparse file
//
// The two differ in placement alone: index, log, durability and recovery are the same.
//
// Opening changes nothing on disk. The first change of a session (a write, a zero, or a flush that
// has something to make stable) first mends what a crash or another writer left: see
// writable_layer.cpp, which also gives the crash argument.
//
// Units: Sectors, and bytes where the name says offset or size. Ownership: owns its files and the
// lock on the data file. Thread-safety: all functions, except that release_stale_space(),
// compact(), resize(), begin_update(), end_update(), seal() and close() want no other call in
// flight. Errors: EROFS after a failed sync, until the layer is opened again; ENOSPC and EIO of the
// files below.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/mutex.h"
#include "core/base/progress.h"
#include "core/base/rwlock.h"
#include "core/format/lsmt.h"
#include "core/index/extent.h"
#include "core/index/live_index.h"
#include "core/io/file.h"
#include "core/layer/append_space.h"
#include "core/layer/flush_group.h"
#include "core/layer/index_log.h"
#include "core/layer/log_reader.h"
#include "core/layer/stale_ranges.h"

namespace obd {

enum class UpperKind { append, sparse };

struct NewLayer {
  UpperKind kind = UpperKind::append;
  uint64_t virtual_size = 0;  // bytes; 0: that of the lowers it will lie on
  Uuid uuid;
  Uuid parent_uuid;
};

// Makes the two files of an empty layer, stable with their names; EEXIST when a name is taken.
Result<void> create_writable_layer(FileSystem& fs, const std::string& data_path,
                                   const std::string& index_path, const NewLayer& layer);

// Where the update of a layer lies (core/image/update.h): beside its data file, whatever name that
// is reached by.
Result<std::string> update_path(FileSystem& fs, const std::string& data_path);

class WritableLayer {
 public:
  struct Options {
    Access access = Access::read_write;
    bool force_share = false;  // no lock; only with Access::read_only
    uint64_t lowers_size = 0;  // bytes; the disk's size when the layer says 0
    // Open although an update has begun and not ended, in order to end it: core/image/update.h.
    bool finish_update = false;
    // Append: keep track of dead space, so that the functions below `Space reclaim` can use it.
    bool reclaim = false;
    // What data file and index log may take, in bytes; 0: whatever the host has.
    uint64_t max_size = 0;
    // Of AppendSpace; smaller ones are for tests on small disks.
    size_t region_blocks = AppendSpace::kMostRegionBlocks;
  };

  struct Stats {
    uint64_t extents = 0;
    Sectors data, zero;       // named by the index
    uint64_t dead_bytes = 0;  // in the data area, named by nothing (append; 0 for sparse)
    uint64_t log_records = 0;
    uint64_t log_dead_records = 0;
    uint64_t syncs = 0;  // fdatasync calls
    uint64_t failed_punches = 0;
    uint64_t punched_bytes = 0;
    uint64_t moved_bytes = 0;  // by clean()
    uint64_t checkpoints = 0;
  };

  // What compact() came to, in bytes.
  struct Compaction {
    bool changed = false;  // false: there was nothing to give back, and nothing was touched
    uint64_t moved = 0;    // live data that was copied to another place
    uint64_t freed = 0;    // of the data file: cut off, or punched
    uint64_t log_freed = 0;
  };

  static Result<std::unique_ptr<WritableLayer>> open(FileSystem& fs, const std::string& data_path,
                                                     const std::string& index_path,
                                                     const Options& options);

  [[nodiscard]] UpperKind kind() const { return kind_; }
  [[nodiscard]] const lsmt::Header& header() const { return header_; }
  [[nodiscard]] uint64_t virtual_size() const { return virtual_size_; }  // bytes
  [[nodiscard]] const File& data_file() const { return *data_; }
  [[nodiscard]] const std::string& index_path() const { return index_path_; }
  // What a person should know although the layer opens.
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }
  // Those of the warnings that tell of lost data.
  [[nodiscard]] const std::vector<std::string>& losses() const { return scan_.losses; }
  [[nodiscard]] Stats stats() const;

  // True when the data file ends in this layer's own trailer: a seal was interrupted, or overlaybd
  // sealed it and left the index file. Writing would ruin it.
  [[nodiscard]] bool sealed_in_place() const { return sealed_in_place_; }

  // Writes must start and end at multiples of this many bytes, or at the end of the disk: the
  // sector for append, the host file system's block for sparse.
  [[nodiscard]] uint64_t granularity() const { return granularity_; }

  // As LiveIndex.
  size_t find(Sectors from, Sectors to, std::span<Extent> out) const;
  [[nodiscard]] bool is_all(ExtentKind kind, Sectors from, Sectors to) const;

  // Data, then index, then log record. When it fails the old content stays, except that in a sparse
  // layer part of the range may be new.
  Result<void> write(Sectors logical, std::span<const std::byte> data);

  // Sparse only: writes bytes in place without recording anything. The range is data already, or
  // record_data() follows; any byte offset.
  Result<void> write_in_place(uint64_t offset, std::span<const std::byte> data);
  // Sparse only: declares that the bytes of [from, to) are in place.
  Result<void> record_data(Sectors from, Sectors to);

  // Makes the range a zero extent, unless it reads as zeros already; `below_is_zero` tells whether
  // the layers below read as zeros there. At most lsmt::kMaxAlignedLength at once.
  Result<void> zero(Sectors logical, Sectors length, bool below_is_zero);

  // Everything completed before the call is stable when it returns.
  Result<void> flush();

  // Zeroed ranges of a sparse layer whose records are stable: their blocks can go back to the host.
  [[nodiscard]] bool has_stale_space() const { return stale_.has_ready(); }
  // Those whose records are not.
  [[nodiscard]] bool has_unstable_stale_space() { return stale_.has_waiting(); }
  // Gives some of them back, a bounded number a call.
  void release_stale_space();

  // Space reclaim, while requests are served: writable_layer_reclaim.cpp has the crash argument.
  // One caller at a time; the three functions that come after these want none.
  //
  // Space of an append layer that is dead becomes usable again in two steps. Between them the
  // caller flushes, unless dead_is_stable(), and makes sure that whoever looked something up in the
  // index before the first step has read it.
  bool begin_ripening();  // false: nothing is dead
  [[nodiscard]] bool dead_is_stable() const { return stable_changes_ >= ripening_changes_; }
  void end_ripening() { space_.end_ripening(); }
  [[nodiscard]] AppendSpace::Usage usage() const { return space_.usage(); }
  // Of an append layer: bytes that the host holds for its data, and that the index names.
  [[nodiscard]] uint64_t held_bytes() const { return space_.held(); }
  [[nodiscard]] uint64_t live_bytes() const { return live_bytes_; }
  [[nodiscard]] uint64_t index_extents() const;
  // Punched or moved so far, in bytes.
  [[nodiscard]] uint64_t reclaimed_bytes() const { return punched_bytes_ + moved_bytes_; }
  // Gives free runs of at least `shortest` bytes back to the host, about `most` bytes in all;
  // returns how many bytes it was.
  Result<uint64_t> punch(uint64_t shortest, uint64_t most);
  // Moves live data, about `most` bytes, out of the regions that are most worth it; returns how
  // many bytes it was. What it leaves behind is dead.
  Result<uint64_t> clean(uint64_t most);
  // After a session's first ripening: looks up what dead space the host still holds, if that is not
  // known. False: there is more to look at.
  Result<bool> survey();
  // Replaces the log by one without dead records if they outnumber the live ones, and it has more
  // than `small` records.
  static constexpr uint64_t kFewLogRecords = 4096;
  Result<void> checkpoint_log(uint64_t small);
  // False after a reclaim would ruin what another name of the files shows.
  Result<bool> may_reclaim() const;

  // Sparse: ENOSPC when `bytes` more would exceed Options::max_size.
  Result<void> check_room(uint64_t bytes) const;

  // Gives back the space that dead data and dead records hold: what is live in an append layer
  // moves into the dead space before it and the data file is cut; a sparse layer's blocks that
  // nothing names are punched. Needs no space but that of a new log. Stable when it returns; after
  // a failure the layer is as it was. writable_layer_compact.cpp has the crash argument.
  Result<Compaction> compact(const ReportProgress& report);

  // Gives the disk another size, a multiple of a sector, not 0. Extents past a smaller size are
  // forgotten. `hidden` lists ranges of sectors past the old end, in order, that become zero
  // extents, because the layers below hold data there. Stable when it returns; after a crash or a
  // failure the disk has the old size or the new. writable_layer_resize.cpp has the crash argument.
  Result<void> resize(uint64_t size, std::span<const SectorRange> hidden);

  // The changes between these two are one step: from the first on until the second, the layer opens
  // with Options::finish_update alone. `hash` is the update's marker_hash(). Stable when they
  // return, and so are the changes before the second.
  Result<void> begin_update(uint64_t hash) {
    return mark_update(lsmt::MarkerKind::update_begun, hash);
  }
  Result<void> end_update(uint64_t hash) {
    return mark_update(lsmt::MarkerKind::update_done, hash);
  }
  // The update that has begun and not ended.
  [[nodiscard]] std::optional<uint64_t> pending_update() const { return pending_update_; }

  // Appends index and trailer to the data file, so that it is a sealed layer, stable; one that is
  // sealed in place already is only made stable. The layer takes no more writes. The index log is
  // still there and to be removed by the caller.
  Result<void> seal();

  // Flushes and leaves a log that opens without doubt, rewritten when most of it is dead.
  Result<void> close();

  // Refuses when the data or the index file has another name (a hard link): `what` moves or cuts
  // data, or gives the file its last form, and the image that uses the other name would read
  // something else. compact(), resize() and seal() ask this themselves, and so
  // does opening a sparse layer for writing.
  Result<void> refuse_other_names(std::string_view what) const;

  Result<void> refresh_lock_holder() const { return data_->refresh_lock_holder(); }

 private:
  WritableLayer(FileSystem& fs, std::string index_path, const Options& options);

  Result<void> load(const std::string& data_path);
  Result<void> load_data_header();
  Result<void> load_log(std::unique_ptr<File> log_file);
  [[nodiscard]] std::string emptied_log() const;
  Result<void> refuse_to_write_over_losses() const;
  Result<void> adopt_allocated_ranges();
  Result<bool> ends_in_own_trailer() const;

  Result<void> settle() OBD_REQUIRES(session_mutex_);
  Result<void> ensure_session();
  Result<void> begin_session() OBD_REQUIRES(session_mutex_);
  Result<void> mend_data_file();
  Result<void> rewrite_log();
  Result<void> replace_log(const lsmt::Header& header, const LiveIndex& index);
  void end_session();
  [[nodiscard]] uint64_t dead_log_records() const;
  Result<Compaction> compact_append(const ReportProgress& report);
  Result<Compaction> compact_sparse(const ReportProgress& report);

  Result<void> check_usable() const;
  Result<void> write_piece(Sectors logical, std::span<const std::byte> data);
  void release(Sectors physical, Sectors length);
  [[nodiscard]] uint64_t data_budget() const;
  void reserve_index(size_t inserts) OBD_REQUIRES(log_mutex_);
  void put(const Extent& extent) OBD_REQUIRES(log_mutex_);
  Result<void> track_space();
  [[nodiscard]] uint64_t changes() const OBD_REQUIRES(log_mutex_);
  struct Part;
  Result<void> move_parts(std::span<Part> parts, std::vector<std::byte>& buffer);
  Result<void> record_moves(std::span<const Part> parts);
  Result<void> draft_log(IndexLog& draft);
  static Result<void> append_from_log(const File& log, IndexLog& draft, uint64_t& from,
                                      uint64_t to);
  Result<void> switch_log(IndexLog::Draft& draft, uint64_t& copied);
  Result<void> record(std::span<const lsmt::Entry> entries);
  Result<void> flush_round(lsmt::MarkerKind kind);
  Result<void> sync_data();
  Result<void> append_entries(std::span<const lsmt::Entry> entries);
  Result<void> zero_unless_zero(const Extent& extent, bool below_is_zero);
  Result<void> give_up(Error reason, bool sync_failed);
  std::unexpected<Error> give_up_locked(Error reason, bool sync_failed) OBD_REQUIRES(log_mutex_);
  [[nodiscard]] bool is_log_in_place() const OBD_REQUIRES(log_mutex_);
  Result<void> mark_update(lsmt::MarkerKind kind, uint64_t hash);
  Result<void> give_up_if_log_broke(Result<void> appended);
  [[nodiscard]] bool log_is_mostly_dead() const;

  // The index changes only with both locks held, so one of them is enough to look at it.
  [[nodiscard]] const LiveIndex& index_for_change() const
      OBD_REQUIRES(log_mutex_) OBD_NO_THREAD_SAFETY_ANALYSIS {
    return index_;
  }
  // While no call is in flight that changes them.
  [[nodiscard]] const LiveIndex& index_at_rest() const OBD_NO_THREAD_SAFETY_ANALYSIS {
    return index_;
  }
  [[nodiscard]] IndexLog* log_at_rest() const OBD_NO_THREAD_SAFETY_ANALYSIS { return log_.get(); }

  FileSystem& fs_;
  const std::string index_path_;
  const Options options_;
  UpperKind kind_ = UpperKind::append;
  lsmt::Header header_;  // of the data file, with the virtual size in force
  uint64_t virtual_size_ = 0;
  uint64_t granularity_ = kSectorSize;
  uint64_t boot_hash_ = 0;
  std::atomic<bool> sealed_in_place_ = false;
  std::vector<std::string> warnings_;
  std::unique_ptr<File> data_;

  // What load() found, until begin_session() has dealt with it.
  LogScan scan_;
  FileInfo index_info_;  // of the index file, for its mode and owner
  bool header_outdated_ = false;

  std::optional<uint64_t> pending_update_;  // changes with no other call in flight

  std::atomic<bool> session_ready_ = false;
  Mutex session_mutex_ OBD_ACQUIRED_BEFORE(log_mutex_);
  bool settled_ OBD_GUARDED_BY(session_mutex_) = false;  // what load() read is known to be stable

  std::atomic<bool> failed_ = false;
  std::string failure_;  // why; written once, before failed_

  AppendSpace space_;  // append only

  // Order in the index = order in the log.
  mutable Mutex log_mutex_ OBD_ACQUIRED_BEFORE(index_mutex_);
  // Null until a sparse layer without a log is adopted. Replaced by a flush round alone, or by what
  // wants no other call in flight.
  std::unique_ptr<IndexLog> log_ OBD_GUARDED_BY(log_mutex_);
  // Added to the log's count of changes, gives one that goes on when the log is replaced.
  uint64_t changes_before_log_ OBD_GUARDED_BY(log_mutex_) = 0;
  std::atomic<uint64_t> log_bytes_ = 0;
  mutable SharedMutex index_mutex_;
  LiveIndex index_ OBD_GUARDED_BY(index_mutex_);

  std::atomic<bool> data_dirty_ = false;
  IndexLog::Position stable_;  // how far the log is stable; set by the running flush round
  std::atomic<uint64_t> stable_changes_ = 0;  // the same, as changes() counts
  uint64_t ripening_changes_ = 0;             // have to be stable before end_ripening()
  std::atomic<uint64_t> live_bytes_ = 0;
  // Where the farthest data ends that a record of the log names, be it dead or not: the file is
  // never cut before it, as a log whose records point outside is not believed. Bytes.
  std::atomic<uint64_t> recorded_end_ = 0;
  std::optional<Sectors> survey_from_ = Sectors();  // nullopt: done
  std::atomic<uint64_t> punched_bytes_ = 0, moved_bytes_ = 0, checkpoints_ = 0;
  FlushGroup flushes_;
  std::atomic<uint64_t> syncs_ = 0;
  std::atomic<uint64_t> failed_punches_ = 0;
  StaleRanges stale_;
};

}  // namespace obd
