// std::mutex, its lock and its condition variable, in a form that clang's thread-safety analysis
// understands (core/base/thread_annotations.h).
//
// Thread-safety: that is what they are for. A MutexLock belongs to the thread that made it.

#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "core/base/thread_annotations.h"

namespace obd {

class OBD_CAPABILITY("mutex") Mutex {
 public:
  void lock() OBD_ACQUIRE() { mutex_.lock(); }
  void unlock() OBD_RELEASE() { mutex_.unlock(); }
  // For the analysis only: the caller holds it.
  void assert_held() const OBD_ASSERT_HELD(this) {}

 private:
  friend class MutexLock;
  std::mutex mutex_;
};

// Holds a mutex from its making to its end, but for what unlock() and lock() say.
class OBD_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) OBD_ACQUIRE(mutex) : lock_(mutex.mutex_) {}
  ~MutexLock() OBD_RELEASE() = default;
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  void lock() OBD_ACQUIRE() { lock_.lock(); }
  void unlock() OBD_RELEASE() { lock_.unlock(); }

 private:
  friend class Condition;
  std::unique_lock<std::mutex> lock_;
};

class Condition {
 public:
  // May end without a reason.
  void wait(MutexLock& lock) { changed_.wait(lock.lock_); }
  // Until is_true(), which is called with the lock held.
  template <typename Predicate>
  void wait(MutexLock& lock, Predicate is_true) {
    changed_.wait(lock.lock_, is_true);
  }
  // The same for `most` at the longest; returns what is_true() said last.
  template <typename Rep, typename Period, typename Predicate>
  bool wait_for(MutexLock& lock, std::chrono::duration<Rep, Period> most, Predicate is_true) {
    return changed_.wait_for(lock.lock_, most, is_true);
  }
  void notify_one() { changed_.notify_one(); }
  void notify_all() { changed_.notify_all(); }

 private:
  std::condition_variable changed_;
};

}  // namespace obd
