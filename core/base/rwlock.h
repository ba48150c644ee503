// SharedMutex: a reader-writer lock in which a waiting writer goes before new readers.
//
// std::shared_mutex leaves the choice to glibc's default, which prefers readers: under a steady
// stream of overlapping requests, each holding the shared side for the length of its I/O, a
// snapshot or a resize that wants the exclusive side could wait for ever.
//
// Not recursive on either side: a thread that holds the shared side and asks for it again
// deadlocks as soon as a writer waits in between.
//
// Thread-safety: that is what it is for. Checked by clang: core/base/thread_annotations.h.

#pragma once

#include <pthread.h>

#include <cstdlib>

#include "core/base/thread_annotations.h"

namespace obd {

class OBD_CAPABILITY("shared mutex") SharedMutex {
 public:
  SharedMutex() = default;
  SharedMutex(const SharedMutex&) = delete;
  SharedMutex& operator=(const SharedMutex&) = delete;
  ~SharedMutex() { pthread_rwlock_destroy(&lock_); }

  void lock() OBD_ACQUIRE() { check(pthread_rwlock_wrlock(&lock_)); }
  bool try_lock() { return pthread_rwlock_trywrlock(&lock_) == 0; }  // not followed by the analysis
  void unlock() OBD_RELEASE() { check(pthread_rwlock_unlock(&lock_)); }

  void lock_shared() OBD_ACQUIRE_SHARED() { check(pthread_rwlock_rdlock(&lock_)); }
  bool try_lock_shared() { return pthread_rwlock_tryrdlock(&lock_) == 0; }
  void unlock_shared() OBD_RELEASE_SHARED() { check(pthread_rwlock_unlock(&lock_)); }

  // For the analysis only: the caller holds it.
  void assert_held() const OBD_ASSERT_HELD(this) {}
  void assert_held_shared() const OBD_ASSERT_HELD_SHARED(this) {}

 private:
  // Only misuse (taking it twice) fails here, and going on without the lock would corrupt data.
  static void check(int code) {
    if (code != 0) std::abort();
  }

  pthread_rwlock_t lock_ = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
};

class OBD_SCOPED_CAPABILITY ReaderLock {
 public:
  explicit ReaderLock(SharedMutex& mutex) OBD_ACQUIRE_SHARED(mutex) : mutex_(mutex) {
    mutex_.lock_shared();
  }
  ~ReaderLock() OBD_RELEASE_GENERIC() { mutex_.unlock_shared(); }
  ReaderLock(const ReaderLock&) = delete;
  ReaderLock& operator=(const ReaderLock&) = delete;

 private:
  SharedMutex& mutex_;
};

class OBD_SCOPED_CAPABILITY WriterLock {
 public:
  explicit WriterLock(SharedMutex& mutex) OBD_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~WriterLock() OBD_RELEASE() { mutex_.unlock(); }
  WriterLock(const WriterLock&) = delete;
  WriterLock& operator=(const WriterLock&) = delete;

 private:
  SharedMutex& mutex_;
};

}  // namespace obd
