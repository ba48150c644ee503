// What can be on a host's disk after a crash, computed from a recording.
//
// A crash comes after some prefix of the trace, the cut. After a power cut the disk holds
// everything that a completed sync covered; of the operations since, each may have reached the
// device or not, sector by sector, in any order: a sector holds what it held after any of the
// operations on it, the size is any that the file has had (or lies between two when a write
// extended it), blocks between are zeros, truncations and holes may not have happened. Names are
// stable after a sync of their folder only; of the operations on names since, any may have
// happened. A failed sync leaves each covered sector old or new for good: no later sync covers it
// again.
//
// After the death of the server alone, the cache lives on: everything issued so far is there, the
// last write perhaps only in part.
//
// Thread-safety: none.

#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "test/support/chooser.h"
#include "test/support/trace.h"

namespace obd::test {

class CrashDisk {
 public:
  // `start` is all stable; the trace, which the caller keeps, goes on from there. `seed` decides
  // what failed syncs did.
  CrashDisk(const DiskState& start, std::span<const TraceEntry> trace, uint64_t seed);

  [[nodiscard]] size_t cut() const { return cut_; }
  // Moves the cut forward: the first `cut` entries have happened.
  void advance_to(size_t cut);

  // One of the legal disks.
  [[nodiscard]] DiskState power_cut(Chooser& chooser) const;

  // How much of the entry at the cut, if it is a write, happens when it is cut short after about
  // `bytes` bytes: a write over bytes that are there stops between two sectors, one that extends
  // the file anywhere.
  [[nodiscard]] size_t cut_short(size_t bytes) const;

  // The host's cache after the server died; the entry at the cut, when it is a write, has happened
  // up to that many bytes.
  [[nodiscard]] DiskState server_death(size_t bytes_of_next) const;

  // How many operations are not stable.
  [[nodiscard]] size_t unsynced() const;

 private:
  struct Unsynced {
    const TraceEntry* entry = nullptr;
    size_t position = 0;  // in the trace
  };
  struct FileState {
    SparseBytes stable;
    SparseBytes cached;
    std::vector<Unsynced> unsynced;
  };

  static SparseBytes choose_file(const SparseBytes& stable, std::span<const Unsynced> unsynced,
                                 Chooser& chooser);
  void end_sync(const TraceEntry& entry);

  std::span<const TraceEntry> trace_;
  size_t cut_ = 0;
  RandomChooser failed_syncs_;
  uint64_t next_file_;
  std::map<uint64_t, FileState> files_;
  std::map<std::string, uint64_t> stable_names_;
  std::map<std::string, uint64_t> cached_names_;
  std::vector<const TraceEntry*> unsynced_names_;
};

// The trace that a crashed server left, up to the cut and with the entry there shortened, so
// that what a later server does to the same cache can go on from it.
Trace truncated_trace(std::span<const TraceEntry> trace, size_t cut, size_t bytes_of_next);

}  // namespace obd::test
