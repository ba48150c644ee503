// Groups concurrent flushes: one caller runs a round of syncs for all that wait.
//
// A caller is served by a round that began after its call, so whatever it had completed before is
// covered. At most one round runs at a time; while one runs, all newcomers share the next.
//
// Thread-safety: all functions. Errors: a round's error goes to everybody whom it served.

#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <utility>

#include "core/base/result.h"

namespace obd {

class FlushGroup {
 public:
  // Returns the result of a round, run by this thread or another, that began after the call.
  template <typename Round>
  Result<void> run(Round&& round) {
    std::unique_lock lock(mutex_);
    const uint64_t wanted = begun_ + 1;
    while (ended_ < wanted) {
      if (begun_ != ended_) {
        round_ended_.wait(lock);
        continue;
      }
      ++begun_;
      lock.unlock();
      Result<void> result = std::forward<Round>(round)();
      lock.lock();
      last_result_ = std::move(result);
      ended_ = begun_;
      round_ended_.notify_all();
    }
    return last_result_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable round_ended_;
  uint64_t begun_ = 0;  // rounds
  uint64_t ended_ = 0;
  Result<void> last_result_;
};

}  // namespace obd
