// Locks over ranges of sectors: two holders never overlap.
//
// A sparse layer writes in place, so a write that must first copy the rest of a block up excludes
// every other change that could turn the same blocks from hole or zero into data, or back.
//
// Thread-safety: all functions. Fairness: none; ranges are held for the length of one request.

#pragma once

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "core/base/units.h"

namespace obd {

class RangeLocks {
 public:
  class Guard {
   public:
    Guard(RangeLocks& locks, Sectors from, Sectors to) : locks_(locks), from_(from) {
      locks_.acquire(from, to);
    }
    ~Guard() { locks_.release(from_); }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    RangeLocks& locks_;
    const Sectors from_;
  };

 private:
  struct Range {
    Sectors from, to;
  };

  void acquire(Sectors from, Sectors to) {
    std::unique_lock lock(mutex_);
    released_.wait(lock, [&] {
      return std::none_of(held_.begin(), held_.end(),
                          [&](const Range& r) { return r.from < to && from < r.to; });
    });
    held_.push_back({from, to});
  }

  void release(Sectors from) {
    {
      const std::lock_guard lock(mutex_);
      // Held ranges are disjoint and not empty, so the start names one of them.
      std::erase_if(held_, [&](const Range& r) { return r.from == from; });
    }
    released_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable released_;
  std::vector<Range> held_;
};

}  // namespace obd
