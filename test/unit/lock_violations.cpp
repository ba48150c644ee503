// Code that breaks the rules of core/base/thread_annotations.h, a rule for each number. No program:
// lock_violations.sh shows that clang accepts number 0 and refuses the others.

#include "core/base/mutex.h"
#include "core/base/rwlock.h"

namespace obd {

class Account {
 public:
  void well() {
    const MutexLock outer(first_);
    const WriterLock inner(second_);
    change();
  }
  int well_shared() {
    const ReaderLock lock(second_);
    return shared_;
  }

#if VIOLATION == 1
  void write_without_lock() { alone_ = 1; }
#elif VIOLATION == 2
  int read_without_lock() { return shared_; }
#elif VIOLATION == 3
  void write_with_shared_lock() {
    const ReaderLock lock(second_);
    shared_ = 1;
  }
#elif VIOLATION == 4
  void call_without_lock() {
    const MutexLock lock(first_);
    change();
  }
#elif VIOLATION == 5
  void wrong_order() {
    const WriterLock outer(second_);
    const MutexLock inner(first_);
  }
#elif VIOLATION == 6
  void twice() {
    const MutexLock outer(first_);
    const MutexLock inner(first_);
  }
#elif VIOLATION == 7
  void after_unlock() {
    MutexLock lock(first_);
    lock.unlock();
    alone_ = 1;
  }
#elif VIOLATION == 8
  void kept() { first_.lock(); }
#endif

 private:
  void change() OBD_REQUIRES(first_, second_) { alone_ = shared_ = 1; }

  Mutex first_ OBD_ACQUIRED_BEFORE(second_);
  SharedMutex second_;
  int alone_ OBD_GUARDED_BY(first_) = 0;
  int shared_ OBD_GUARDED_BY(second_) = 0;
};

}  // namespace obd
