// SharedMutex: a reader-writer lock in which a waiting writer goes before new readers.
//
// std::shared_mutex leaves the choice to glibc's default, which prefers readers: under a steady
// stream of overlapping requests, each holding the shared side for the length of its I/O, a
// snapshot or a resize that wants the exclusive side could wait for ever.
//
// Not recursive on either side: a thread that holds the shared side and asks for it again
// deadlocks as soon as a writer waits in between.
//
// Thread-safety: that is what it is for. Meets the requirements of std::shared_lock,
// std::unique_lock and std::scoped_lock.

#pragma once

#include <pthread.h>

#include <cstdlib>

namespace obd {

class SharedMutex {
 public:
  SharedMutex() = default;
  SharedMutex(const SharedMutex&) = delete;
  SharedMutex& operator=(const SharedMutex&) = delete;
  ~SharedMutex() { pthread_rwlock_destroy(&lock_); }

  void lock() { check(pthread_rwlock_wrlock(&lock_)); }
  bool try_lock() { return pthread_rwlock_trywrlock(&lock_) == 0; }
  void unlock() { check(pthread_rwlock_unlock(&lock_)); }

  void lock_shared() { check(pthread_rwlock_rdlock(&lock_)); }
  bool try_lock_shared() { return pthread_rwlock_tryrdlock(&lock_) == 0; }
  void unlock_shared() { check(pthread_rwlock_unlock(&lock_)); }

 private:
  // Only misuse (taking it twice) fails here, and going on without the lock would corrupt data.
  static void check(int code) {
    if (code != 0) std::abort();
  }

  pthread_rwlock_t lock_ = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
};

}  // namespace obd
