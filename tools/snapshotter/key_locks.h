// Locks by name: for names that come and go, as the keys of snapshots do.
//
// Thread-safety: that is what it is for. Whoever locks several names of one KeyLocks needs an order
// in which all do that: lock_two() has one.

#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace obd::snapshotter {

class KeyLocks {
 public:
  class Lock {
   public:
    Lock(KeyLocks& owner, std::string name) : owner_(&owner), name_(std::move(name)) {
      Entry* entry = nullptr;
      {
        const std::lock_guard guard(owner_->mutex_);
        entry = &owner_->entries_[name_];
        ++entry->users;
      }
      entry->mutex.lock();
    }
    Lock(Lock&& other) noexcept
        : owner_(std::exchange(other.owner_, nullptr)), name_(std::move(other.name_)) {}
    Lock& operator=(Lock&&) = delete;
    ~Lock() {
      if (owner_ == nullptr) return;
      const std::lock_guard guard(owner_->mutex_);
      const auto found = owner_->entries_.find(name_);
      found->second.mutex.unlock();
      if (--found->second.users == 0) owner_->entries_.erase(found);
    }

   private:
    friend class KeyLocks;
    Lock() = default;  // of nothing

    KeyLocks* owner_ = nullptr;
    std::string name_;
  };

  // Waits until nobody else holds it.
  Lock lock(std::string name) { return {*this, std::move(name)}; }

  // Both, in an order that two callers cannot block each other by. One name twice is one lock.
  std::pair<Lock, Lock> lock_two(std::string a, std::string b) {
    if (b < a) std::swap(a, b);
    Lock first(*this, a);
    if (a == b) return {std::move(first), Lock()};
    return {std::move(first), Lock(*this, std::move(b))};
  }

 private:
  struct Entry {
    std::mutex mutex;
    int users = 0;
  };

  std::mutex mutex_;
  std::map<std::string, Entry> entries_;
};

}  // namespace obd::snapshotter
