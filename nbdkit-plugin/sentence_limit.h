// How many sentences about failed requests go to the log: a client that meets a full disk fails
// thousands of requests a second, and the log may lie in memory.
//
// Thread-safety: admit() may be called from many threads at once.

#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "core/base/mutex.h"

namespace obd {

class SentenceLimit {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr unsigned kPerPeriod = 20;
  static constexpr std::chrono::seconds kPeriod{60};

  // Whether the sentence may be said; the value is how many were kept back since the last one that
  // was said.
  std::optional<uint64_t> admit(Clock::time_point now = Clock::now()) {
    const MutexLock lock(mutex_);
    if (!period_began_ || now - *period_began_ >= kPeriod) {
      period_began_ = now;
      said_ = 0;
    }
    if (said_ == kPerPeriod) {
      ++kept_back_;
      return std::nullopt;
    }
    ++said_;
    const uint64_t before = kept_back_;
    kept_back_ = 0;
    return before;
  }

  // How many have been kept back and not been told of.
  uint64_t kept_back() {
    const MutexLock lock(mutex_);
    return kept_back_;
  }

 private:
  Mutex mutex_;
  std::optional<Clock::time_point> period_began_ OBD_GUARDED_BY(mutex_);
  unsigned said_ OBD_GUARDED_BY(mutex_) = 0;
  uint64_t kept_back_ OBD_GUARDED_BY(mutex_) = 0;
};

}  // namespace obd
