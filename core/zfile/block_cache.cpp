// The cache is cut into shards by a hash of the key, each with a lock, a map and a list in order of
// use. A block that is being filled is not in the map but among the shard's loads, where those who
// come later find it and wait; whoever fills it moves the outcome from there, and nothing else
// does.

#include "core/zfile/block_cache.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <list>
#include <new>
#include <optional>
#include <unordered_map>

namespace obd {
namespace {

// Enough for every thread of a server to be in one of its own most of the time, but each large
// enough for several of the largest blocks.
constexpr uint64_t kMaxShards = 16;
constexpr uint64_t kMinShardCapacity = uint64_t{4} << 20;

// What a block costs besides its bytes: list node, map node and bucket, reference counts.
constexpr uint64_t kOverhead = 160;

struct Hash {
  size_t operator()(const BlockCache::Key& key) const {
    // The finalizer of SplitMix64: neighbouring blocks go to different shards.
    uint64_t x = key.blob * 0x9E3779B97F4A7C15 + key.block;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    return static_cast<size_t>(x ^ x >> 31);
  }
};

struct Entry {
  BlockCache::Key key;
  BlockCache::Block block;
  uint64_t cost = 0;
};

// The sentence is so short that it needs no memory either.
std::unexpected<Error> out_of_memory() {
  return std::unexpected<Error>(Error{ENOMEM, "out of memory"});
}

struct Load {
  Condition done;
  std::optional<Result<BlockCache::Block>> outcome;  // under the shard's mutex
};

}  // namespace

struct alignas(64) BlockCache::Shard {
  mutable Mutex mutex;
  std::list<Entry> by_use OBD_GUARDED_BY(mutex);  // the most recently used first
  std::unordered_map<Key, std::list<Entry>::iterator, Hash> entries OBD_GUARDED_BY(mutex);
  std::unordered_map<Key, std::shared_ptr<Load>, Hash> loads OBD_GUARDED_BY(mutex);
  uint64_t bytes OBD_GUARDED_BY(mutex) = 0;

  Block find(const Key& key) OBD_REQUIRES(mutex) {
    const auto found = entries.find(key);
    if (found == entries.end()) return nullptr;
    by_use.splice(by_use.begin(), by_use, found->second);
    return found->second->block;
  }

  void insert(const Key& key, const Block& block, uint64_t cost, uint64_t capacity)
      OBD_REQUIRES(mutex) {
    if (cost > capacity) return;
    while (bytes > capacity - cost) {
      bytes -= by_use.back().cost;
      entries.erase(by_use.back().key);
      by_use.pop_back();
    }
    // Without memory for the bookkeeping the block is not kept, and nothing else changes.
    try {
      by_use.push_front({key, block, cost});
    } catch (const std::bad_alloc&) {
      return;
    }
    try {
      entries.emplace(key, by_use.begin());
    } catch (const std::bad_alloc&) {
      by_use.pop_front();
      return;
    }
    bytes += cost;
  }
};

BlockCache::BlockCache(uint64_t capacity)
    : shard_count_(static_cast<size_t>(
          std::bit_floor(std::clamp<uint64_t>(capacity / kMinShardCapacity, 1, kMaxShards)))),
      shard_capacity_(capacity / shard_count_),
      shards_(std::make_unique<Shard[]>(shard_count_)) {}

BlockCache::~BlockCache() = default;

BlockCache::Shard& BlockCache::shard_of(const Key& key) const {
  // The low bits choose the map's bucket.
  return shards_[Hash()(key) >> 32 & (shard_count_ - 1)];
}

BlockCache::Block BlockCache::find(const Key& key) {
  if (!keeps_blocks()) return nullptr;
  Shard& shard = shard_of(key);
  const MutexLock guard(shard.mutex);
  Block block = shard.find(key);
  if (block) hits_.fetch_add(1, std::memory_order_relaxed);
  return block;
}

Result<BlockCache::Block> BlockCache::fill_block(size_t size, const Fill& fill) {
  misses_.fetch_add(1, std::memory_order_relaxed);
  // Whoever waits for the outcome must get one.
  try {
    auto bytes = std::make_shared_for_overwrite<std::byte[]>(size);
    OBD_TRY(fill({bytes.get(), size}));
    return bytes;
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  }
}

Result<BlockCache::Block> BlockCache::load(const Key& key, size_t size, const Fill& fill) try {
  if (!keeps_blocks()) return fill_block(size, fill);
  Shard& shard = shard_of(key);
  std::shared_ptr<Load> mine;
  {
    MutexLock lock(shard.mutex);
    if (Block block = shard.find(key)) {
      hits_.fetch_add(1, std::memory_order_relaxed);
      return block;
    }
    if (const auto found = shard.loads.find(key); found != shard.loads.end()) {
      const std::shared_ptr<Load> theirs = found->second;
      hits_.fetch_add(1, std::memory_order_relaxed);
      theirs->done.wait(lock, [&] { return theirs->outcome.has_value(); });
      return *theirs->outcome;
    }
    mine = std::make_shared<Load>();
    shard.loads.emplace(key, mine);
  }
  Result<Block> outcome = fill_block(size, fill);
  const MutexLock guard(shard.mutex);
  // Nothing here may throw before those who wait have their outcome: it is moved, not copied.
  mine->outcome.emplace(std::move(outcome));
  mine->done.notify_all();
  shard.loads.erase(key);
  if (*mine->outcome) shard.insert(key, **mine->outcome, size + kOverhead, shard_capacity_);
  return *mine->outcome;
} catch (const std::bad_alloc&) {
  return out_of_memory();
}

BlockCache::Stats BlockCache::stats() const {
  Stats stats{.hits = hits_, .misses = misses_};
  for (size_t i = 0; i < shard_count_; ++i) {
    const MutexLock guard(shards_[i].mutex);
    stats.bytes += shards_[i].bytes;
  }
  return stats;
}

}  // namespace obd
