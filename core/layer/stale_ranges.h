// Zeroed ranges of a sparse layer that wait for their record to become stable, so that their blocks
// can be given back.
//
// A range is ready once the log is stable past the record that zeroed it. Memory is bounded: beyond
// kMaxRanges, neighbours are joined into hulls, which is harmless because whoever punches looks up
// what is still zero.
//
// Thread-safety: all functions.

#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "core/base/mutex.h"
#include "core/base/units.h"

namespace obd {

struct SectorRange {
  Sectors from;
  Sectors to;
};

class StaleRanges {
 public:
  static constexpr size_t kMaxRanges = 4096;

  // `changes`: the log's count of changes once the zeroing record is in it.
  void add(SectorRange range, uint64_t changes);
  // The log is stable up to this count.
  void became_stable(uint64_t changes);
  [[nodiscard]] bool has_ready() const { return has_ready_; }
  [[nodiscard]] bool has_waiting();
  // Moves out at most `most` ready ranges.
  std::vector<SectorRange> take_ready(size_t most);
  // What of a taken range is still to be done.
  void put_back(SectorRange range);

 private:
  struct Waiting {
    SectorRange range;
    uint64_t changes;
  };
  Mutex mutex_;
  std::vector<Waiting> waiting_ OBD_GUARDED_BY(mutex_);
  std::vector<SectorRange> ready_ OBD_GUARDED_BY(mutex_);
  std::atomic<bool> has_ready_ = false;
};

}  // namespace obd
