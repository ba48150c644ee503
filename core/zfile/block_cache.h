// Decompressed blocks of ZFiles, kept for as long as they are used and fit.
//
// One cache serves all layers of all images that it is given to; a process that opens several
// images gives them one (LayerStore). The least recently used blocks go first. When many
// readers want a block that is not there, one of them decompresses it and the others wait.
//
// Units: bytes. Ownership: blocks are handed out reference-counted: one that is evicted stays alive
// for those who have it. Thread-safety: all functions may be called from many threads at once; no
// lock is held while a block is read and decompressed. Errors: those of filling a block, passed on
// to everyone who waited for it and not kept.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include <atomic>

#include "core/base/result.h"
#include "core/zfile/workspace_pool.h"

namespace obd {

class BlockCache {
 public:
  static constexpr uint64_t kDefaultCapacity = uint64_t{64} << 20;

  using Block = std::shared_ptr<const std::byte[]>;
  using Fill = std::function<Result<void>(std::span<std::byte> out)>;

  struct Key {
    uint64_t blob = 0;  // from new_blob()
    uint64_t block = 0;
    bool operator==(const Key&) const = default;
  };

  struct Stats {
    uint64_t hits = 0;
    uint64_t misses = 0;  // how often a block was filled
    uint64_t bytes = 0;   // that the blocks here take
  };

  // `capacity` bounds what the cache keeps, its own bookkeeping included. 0 keeps nothing.
  explicit BlockCache(uint64_t capacity);
  ~BlockCache();
  BlockCache(const BlockCache&) = delete;
  BlockCache& operator=(const BlockCache&) = delete;

  [[nodiscard]] bool keeps_blocks() const { return shard_capacity_ != 0; }

  // A number for a blob that no other one has had: a file may change between two openings.
  // The blocks of a blob that is gone are not asked for again, so they are evicted in time.
  uint64_t new_blob() { return next_blob_.fetch_add(1, std::memory_order_relaxed); }

  // Null when the block is not here.
  [[nodiscard]] Block find(const Key& key);

  // Fills the block, unless it is here by now or somebody else is filling it. All callers give the
  // same size for a key.
  [[nodiscard]] Result<Block> load(const Key& key, size_t size, const Fill& fill);

  [[nodiscard]] Stats stats() const;

  // What the readers that share the cache decompress with.
  [[nodiscard]] WorkspacePool& workspaces() { return workspaces_; }

 private:
  struct Shard;

  [[nodiscard]] Shard& shard_of(const Key& key) const;
  Result<Block> fill_block(size_t size, const Fill& fill);

  size_t shard_count_;       // a power of two
  uint64_t shard_capacity_;  // bytes
  std::unique_ptr<Shard[]> shards_;
  std::atomic<uint64_t> next_blob_ = 0;
  std::atomic<uint64_t> hits_ = 0;
  std::atomic<uint64_t> misses_ = 0;
  WorkspacePool workspaces_;
};

}  // namespace obd
