// The space of an append layer's data file: where the next data goes, what is dead, and what can be
// used again or be given back to the host.
//
// Counts in blocks of 4096 bytes, in regions of up to 1024 blocks. A block is
//
//   used      at least one of its sectors is live, or being written
//   waiting   all of it is dead, by records that need not be stable yet
//   ripening  dead, and begin_ripening() has noted which records have to be stable
//   free      dead for good: no record that a crash can leave names it, and no reader is at it
//   taken     was free, and is being punched
//
// and apart from that a hole, when the host holds no block for it, or held. Dead space is tracked
// to the sector: a block whose sectors die one by one becomes waiting with the last of them. A
// block that has become free takes new data, so a disk that is overwritten again and again needs no
// space but this; what is left over is punched.
//
// Until track() is called nothing of this is known: data goes to the end, and death is not noted.
//
// Memory: some 650 bytes for each region that is not wholly free and given back, and 1 KiB more
// where single sectors died: at most 1/2500 of the held space. Thread-safety: all functions.
// Errors: ENOSPC and EFBIG of allocate(); what cannot be noted for want of memory is only lost to
// this session.

#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/mutex.h"
#include "core/base/result.h"
#include "core/base/units.h"
#include "core/layer/block_bits.h"
#include "core/layer/stale_ranges.h"

namespace obd {

class AppendSpace {
 public:
  // Longest range that allocate() is asked for, in bytes.
  static constexpr uint64_t kLongestRange = 1024 * 1024;
  // Largest unit that take_for_punching() is asked for, in bytes.
  static constexpr uint64_t kLongestUnit = 64 * 1024;
  static constexpr size_t kMostRegionBlocks = BlockBits::kBlocks;

  struct Usage {         // bytes
    uint64_t held = 0;   // blocks that the host has set aside
    uint64_t used = 0;   // blocks that are at least partly live
    uint64_t free = 0;   // held, and free
    uint64_t dying = 0;  // waiting or ripening
  };

  AppendSpace();
  ~AppendSpace();

  // `end`: where the file ends; a multiple of a block.
  void reset(Sectors end);

  // Begins to keep track: calls add_live(from, to) for each live range, in any order, through
  // `list`. Everything else before the end is dead, and waiting. `held`: what the host says that
  // the file takes, in bytes. False, and no tracking, when two ranges overlap.
  using AddLive = std::function<void(Sectors from, Sectors to)>;
  bool track(size_t region_blocks, uint64_t held, const std::function<void(const AddLive&)>& list);
  [[nodiscard]] bool is_tracking() const;

  // Space for `length` sectors of the disk from `logical` on. A range that holds whole blocks of
  // the disk keeps its alignment, so that they are whole blocks in the file, too; anything smaller
  // is packed. `most_held` is what held may come to, in bytes, or 0.
  Result<Sectors> allocate(Sectors logical, Sectors length, uint64_t most_held,
                           const std::string& path);

  // The range was allocated, but no record names it. cut(end) cuts the file there, if it may,
  // which is tried when nothing lies behind the range.
  void give_back(Sectors from, Sectors length, const std::function<bool(Sectors end)>& cut);

  // No record of the log names the range from the next one on.
  void kill(Sectors from, Sectors length) noexcept;

  // Where the farthest data ended that was ever allocated.
  [[nodiscard]] Sectors end() const;
  [[nodiscard]] Usage usage() const;
  // usage().held, cheaply.
  [[nodiscard]] uint64_t held() const { return held_bytes_; }

  // Everything that waits is ripening afterwards; false when nothing is.
  bool begin_ripening();
  // What is ripening is free afterwards.
  void end_ripening();

  // Free, held ranges of whole units of `unit` bytes, at least `shortest` bytes long, the largest
  // first, until they come to `most_bytes` or are `most_ranges`. They are taken until punched().
  std::vector<SectorRange> take_for_punching(uint64_t unit, uint64_t shortest, uint64_t most_bytes,
                                             size_t most_ranges);
  void punched(const SectorRange& range, bool is_hole);

  // The regions from which the least live data has to be moved for the most space, with at most
  // `most_live` bytes together; nothing new is put there until they are released. Empty when none
  // is worth it.
  std::vector<SectorRange> take_for_cleaning(uint64_t most_live);
  void release_cleaned(const std::vector<SectorRange>& regions);

  // True after track() when the host holds more than what is used, so that it is not known which
  // of the dead blocks are holes. survey() looks it up, from `from` on and in a bounded number of
  // steps; next_held(at) gives the first held run of the file at or after a sector. Returns where
  // to go on; nullopt when it is through. Whoever calls it also calls end_ripening(), and has done
  // so: before that nothing needs to be surveyed.
  [[nodiscard]] bool needs_survey() const;
  using NextHeld = std::function<Result<std::optional<SectorRange>>(Sectors from)>;
  Result<std::optional<Sectors>> survey(Sectors from, const NextHeld& next_held);

 private:
  struct Region;
  // A run of blocks from which ranges are cut, and where to look for the next.
  struct Head {
    Sectors at, end;
    uint64_t next_region = 0;
    size_t next_block = 0;
  };

  enum State : uint8_t { waiting, ripening, free, taken, kStates };

  [[nodiscard]] Sectors begin_of(uint64_t region) const OBD_REQUIRES(mutex_);
  [[nodiscard]] uint64_t used_blocks() const OBD_REQUIRES(mutex_);
  [[nodiscard]] uint64_t held_blocks() const OBD_REQUIRES(mutex_);
  [[nodiscard]] uint64_t absent_blocks() const OBD_REQUIRES(mutex_);
  Region& region_at(uint64_t number) OBD_REQUIRES(mutex_);
  template <typename Visit>
  void for_each_part(uint64_t from, uint64_t to, Visit&& visit) OBD_REQUIRES(mutex_);
  // nullopt: used.
  void assign(Region& region, size_t from, size_t to, std::optional<State> state)
      OBD_REQUIRES(mutex_);
  void replace(Region& region, State from, State to) OBD_REQUIRES(mutex_);
  void set_holes(Region& region, size_t from, size_t to, bool hole) OBD_REQUIRES(mutex_);
  void recount_free(Region& region) OBD_REQUIRES(mutex_);
  static void clear_dead(Region& region, size_t from, size_t to);
  bool revive(Region& region, size_t block, uint8_t mask) OBD_REQUIRES(mutex_);
  void kill_locked(Sectors from, Sectors to) noexcept OBD_REQUIRES(mutex_);
  void kill_sectors(Region& region, size_t block, uint8_t mask) noexcept OBD_REQUIRES(mutex_);
  void forget_empty_regions() OBD_REQUIRES(mutex_);
  [[nodiscard]] bool worth_reusing() const OBD_REQUIRES(mutex_);
  [[nodiscard]] bool is_head_in(uint64_t number) const OBD_REQUIRES(mutex_);
  bool next_run(Head& head, bool whole_regions) OBD_REQUIRES(mutex_);
  void grow(Head& head, Sectors length) OBD_REQUIRES(mutex_);
  void retire(Head& head) OBD_REQUIRES(mutex_);

  mutable Mutex mutex_;
  bool tracking_ OBD_GUARDED_BY(mutex_) = false;
  size_t region_blocks_ OBD_GUARDED_BY(mutex_) = kMostRegionBlocks;
  bool needs_survey_ OBD_GUARDED_BY(mutex_) = false;
  Sectors end_ OBD_GUARDED_BY(mutex_);               // of what was ever allocated
  uint64_t regions_end_ OBD_GUARDED_BY(mutex_) = 0;  // number of the first region past the file
  // Those that are absent before regions_end_ are wholly dead. What killed them need not be stable
  // before the first ripening after track(); later they are free, and holes.
  std::map<uint64_t, Region> regions_ OBD_GUARDED_BY(mutex_);
  enum class Absent {
    unusable,
    ripening,
    usable
  } absent_ OBD_GUARDED_BY(mutex_) = Absent::unusable;
  Head small_ OBD_GUARDED_BY(mutex_), large_ OBD_GUARDED_BY(mutex_);
  std::array<uint64_t, kStates> blocks_ OBD_GUARDED_BY(mutex_) = {};  // in each state
  uint64_t holes_ OBD_GUARDED_BY(mutex_) = 0;      // blocks, of those in regions_
  uint64_t free_held_ OBD_GUARDED_BY(mutex_) = 0;  // blocks
  std::atomic<uint64_t> held_bytes_ = 0;
};

}  // namespace obd
