// Working memory for decompression, lent to whoever reads a ZFile.
//
// A zstd context takes 160 KB: with one a reader, a deep stack would hold many that nobody uses.
// Here their number follows the reads under way.
//
// Ownership: a lease returns its workspace when it is destroyed, before its pool. Thread-safety:
// take() and the end of a lease may happen in any thread; a lease belongs to one.

#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "core/base/mutex.h"
#include "core/zfile/codec.h"

namespace obd {

class Workspace {
 public:
  Decompressor decompressor;

  // Room for what is read from the file; its content is left over from before.
  std::span<std::byte> stored(size_t size) {
    if (buffer_.size() < size) buffer_.resize(size);
    return std::span(buffer_).first(size);
  }

 private:
  std::vector<std::byte> buffer_;
};

class WorkspacePool {
 public:
  class Lease {
   public:
    Lease(WorkspacePool& pool, std::unique_ptr<Workspace> workspace)
        : pool_(pool), workspace_(std::move(workspace)) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { pool_.give_back(std::move(workspace_)); }

    Workspace* operator->() const { return workspace_.get(); }

   private:
    WorkspacePool& pool_;
    std::unique_ptr<Workspace> workspace_;
  };

  WorkspacePool() { idle_.reserve(kMaxIdle); }

  Lease take() {
    {
      const MutexLock guard(mutex_);
      if (!idle_.empty()) {
        std::unique_ptr<Workspace> workspace = std::move(idle_.back());
        idle_.pop_back();
        return {*this, std::move(workspace)};
      }
    }
    return {*this, std::make_unique<Workspace>()};
  }

 private:
  // As many as nbdkit has threads by default.
  static constexpr size_t kMaxIdle = 16;

  void give_back(std::unique_ptr<Workspace> workspace) {
    const MutexLock guard(mutex_);
    if (idle_.size() < kMaxIdle) idle_.push_back(std::move(workspace));
  }

  Mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> idle_ OBD_GUARDED_BY(mutex_);
};

}  // namespace obd
