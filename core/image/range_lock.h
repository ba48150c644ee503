// Shared and exclusive locks over ranges of sectors, for layers that write in place.
//
// Exclusive holders overlap nobody; shared holders may overlap each other. A shared request waits
// behind an exclusive one that waits for the same sectors, so writers in place cannot starve it.
//
// Thread-safety: all functions. A thread holds at most one range at a time, so there is no order to
// keep. Ranges are not empty and are held for the length of one request.

#pragma once

#include <algorithm>
#include <vector>

#include "core/base/mutex.h"
#include "core/base/units.h"

namespace obd {

class RangeLocks {
 public:
  enum class Mode { shared, exclusive };

  class Guard {
   public:
    Guard(RangeLocks& locks, Mode mode, Sectors from, Sectors to)
        : locks_(locks), held_{from, to, mode} {
      locks_.acquire(held_);
    }
    ~Guard() { locks_.release(held_); }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    friend class RangeLocks;
    RangeLocks& locks_;
    const struct Range {
      Sectors from, to;
      Mode mode;
      bool operator==(const Range&) const = default;
    } held_;
  };

 private:
  using Range = Guard::Range;

  static bool overlaps_any(const std::vector<Range>& ranges, const Range& wanted, Mode at_least) {
    return std::any_of(ranges.begin(), ranges.end(), [&](const Range& range) {
      return range.from < wanted.to && wanted.from < range.to && range.mode >= at_least;
    });
  }

  void acquire(const Range& wanted) {
    MutexLock lock(mutex_);
    if (wanted.mode == Mode::exclusive) {
      waiting_.push_back(wanted);
      changed_.wait(lock, [&] {
        mutex_.assert_held();
        return !overlaps_any(held_, wanted, Mode::shared);
      });
      erase_one(waiting_, wanted);
    } else {
      changed_.wait(lock, [&] {
        mutex_.assert_held();
        return !overlaps_any(held_, wanted, Mode::exclusive) &&
               !overlaps_any(waiting_, wanted, Mode::exclusive);
      });
    }
    held_.push_back(wanted);
  }

  void release(const Range& range) {
    {
      const MutexLock lock(mutex_);
      erase_one(held_, range);
    }
    changed_.notify_all();
  }

  // Equal ranges are interchangeable: any one of them may go.
  static void erase_one(std::vector<Range>& ranges, const Range& range) {
    ranges.erase(std::find(ranges.begin(), ranges.end(), range));
  }

  Mutex mutex_;
  Condition changed_;
  std::vector<Range> held_ OBD_GUARDED_BY(mutex_);
  std::vector<Range> waiting_ OBD_GUARDED_BY(mutex_);  // exclusive requests
};

}  // namespace obd
