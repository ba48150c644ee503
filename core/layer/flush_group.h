// Groups concurrent flushes: one caller runs a round of syncs for all that wait.
//
// A caller is served by a round that began after its call, so whatever it had completed before is
// covered. At most one round runs at a time; while one runs, all newcomers share the next.
//
// Thread-safety: all functions. Errors: a round's error goes to everybody whom it served.

#pragma once

#include <cerrno>
#include <cstdint>
#include <utility>

#include "core/base/mutex.h"
#include "core/base/result.h"

namespace obd {

class FlushGroup {
 public:
  // Returns the result of a round, run by this thread or another, that began after the call.
  template <typename Round>
  Result<void> run(const Round& round) {
    MutexLock lock(mutex_);
    const uint64_t wanted = begun_ + 1;
    while (ended_ < wanted) {
      if (begun_ != ended_) {
        round_ended_.wait(lock);
      } else {
        ++begun_;
        run_round(round, lock);
      }
    }
    return last_result_;
  }

 private:
  // Without the lock, which it has again when it returns.
  template <typename Round>
  void run_round(const Round& round, MutexLock& lock) OBD_NO_THREAD_SAFETY_ANALYSIS {
    EndOfRound end{*this, lock};
    lock.unlock();
    end.result = round();
  }

  // Ends the round on every way out, so that nobody waits for one that will never end.
  struct EndOfRound {
    FlushGroup& group;
    MutexLock& lock;
    // What those who wait are told if the round ends by an exception.
    Result<void> result = std::unexpected<Error>(Error{ENOMEM, {}});

    ~EndOfRound() OBD_NO_THREAD_SAFETY_ANALYSIS {
      lock.lock();
      group.last_result_ = std::move(result);
      group.ended_ = group.begun_;
      group.round_ended_.notify_all();
    }
  };

  Mutex mutex_;
  Condition round_ended_;
  uint64_t begun_ OBD_GUARDED_BY(mutex_) = 0;  // rounds
  uint64_t ended_ OBD_GUARDED_BY(mutex_) = 0;
  Result<void> last_result_ OBD_GUARDED_BY(mutex_);
};

}  // namespace obd
