// The index log of a writable layer, open for appending.
//
// The file grows a block at a time: the records that begin a block are written together with
// padding for the rest of it, which every reader of the format drops and the next records replace.
// So a sync has to make a new file size stable once in 256 records, not each time. A closed log has
// no padding, and the session marker that comes next brings none: a crash can leave anything in
// what was added to a file, and behind a closed log that would be taken for overlaybd's records.
//
// Every append is whole or has not happened: when a write fails or is short, the file is cut back
// to where it was. A log that cannot be cut back refuses everything from then on.
//
// Units: records are counted from 0, the first entry after the header. Ownership: owns its file.
// Thread-safety: none for append_*, distrust(), position() and broken(), the owner locks; sync()
// may run beside them. Errors: those of the file below; EIO once the log is broken.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "core/format/log_marker.h"
#include "core/format/lsmt.h"
#include "core/index/live_index.h"
#include "core/io/file.h"

namespace obd {

class IndexLog {
 public:
  // A prefix of the log.
  struct Position {
    uint64_t records = 0;
    uint64_t changes = 0;  // of these, mappings and marks of updates: what has to be made stable
    uint32_t crc = lsmt::kLogCrcInit;
  };

  // Goes on with a log whose records have been read.
  IndexLog(std::unique_ptr<File> file, Position end);

  // A log under a temporary name, that is to replace another.
  struct Draft {
    std::unique_ptr<IndexLog> log;
    std::string temporary_path;
  };
  // Begins one beside `path`, with nothing but its header; mode and owner are taken from `like`.
  static Result<Draft> begin_draft(FileSystem& fs, const std::string& path,
                                   const lsmt::Header& header, bool sparse, const FileInfo& like);
  // Removes it. It is worth nothing, so that it cannot be removed is no error of the caller's.
  static void discard(FileSystem& fs, Draft draft);

  // Writes a new log under `path`, replacing any: `header`, the extents of `index`, the mark of an
  // update that has begun and not ended, and a close marker. It is stable when this returns, and so
  // must be the data that the extents name before this is called. Two steps, so that the caller
  // knows after a failure which log is in force: prepare() makes the draft, install() renames it.
  static Result<Draft> prepare(FileSystem& fs, const std::string& path, const lsmt::Header& header,
                               const LiveIndex& index, std::optional<uint64_t> pending_update,
                               bool sparse, const FileInfo& like);
  static Result<std::unique_ptr<IndexLog>> install(FileSystem& fs, const std::string& path,
                                                   Draft draft);
  // A draft that has been renamed to `path`, opened again, so that its errors name the file as it
  // is called now; failing that, they go on naming it as it was called.
  static std::unique_ptr<IndexLog> under_its_name(FileSystem& fs, const std::string& path,
                                                  Draft draft);

  [[nodiscard]] Position position() const { return end_; }
  // An append failed and could not be undone, so part of it may stand behind the log's end, or a
  // close marker may.
  [[nodiscard]] bool broken() const { return broken_; }
  [[nodiscard]] const File& file() const { return *file_; }

  Result<void> append(std::span<const lsmt::Entry> mappings);
  Result<void> append_session(uint64_t boot_hash);
  // kind: update_begun or update_done.
  Result<void> append_update(lsmt::MarkerKind kind, uint64_t hash);
  // A sync failed: writes down, as well as the host still can, that only `covered` may be believed.
  void distrust(const Position& covered);
  // kind: commit, close or distrust; `covered` is the prefix that the marker speaks of.
  Result<void> append_marker(lsmt::MarkerKind kind, const Position& covered);

  // Makes everything appended before the call stable.
  Result<void> sync() { return file_->sync(); }

 private:
  Result<void> append_bytes(std::span<const std::byte> bytes, uint64_t changes,
                            bool padded_to_block = true);
  Result<void> write_records(std::span<const std::byte> bytes, uint64_t offset,
                             bool padded_to_block);

  std::unique_ptr<File> file_;
  Position end_;
  uint64_t after_last_marker_;  // records; the newest marker is right before it, if it is known
  // Up to here, in bytes, the file has records or padding; it may have more of it.
  uint64_t filled_;
  bool broken_ = false;
};

// How a live extent is written down: in a log, or in the index of a sealed layer.
lsmt::Entry to_entry(const Extent& extent);

}  // namespace obd
