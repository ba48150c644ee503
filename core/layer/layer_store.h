// The sealed layers that a process has open, and the indexes of their stacks, each once.
//
// Images that are given one store (OpenOptions::layers) share whatever they have in common: a layer
// is a file descriptor, a lock, a jump table and its blocks in the cache; the index of a stack is
// the greatest part of an image's memory. The store only knows what is open, it keeps nothing so:
// the last image that lets go of a layer or an index frees it.
//
// A layer is known by what its file is, not by its name alone: one that has been replaced, or
// changed in place, is opened as another. (While it is open, its inode's number is nobody else's.)
// Its name counts too, because sentences tell it.
//
// Ownership: as above; layers and indexes may outlive the store. Thread-safety: all functions; no
// lock is held while a file is read, so when two threads open the same layer at the same moment,
// both read it, and one of them throws away what it has read. Nothing of this is on the way of a
// read or write.

#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/base/mutex.h"
#include "core/index/frozen_index.h"
#include "core/layer/sealed_layer.h"
#include "core/zfile/block_cache.h"

namespace obd {

class LayerStore {
 public:
  using Layer = std::shared_ptr<const SealedLayer>;

  // Of decompressed blocks of the layers. Null: one of BlockCache::kDefaultCapacity.
  explicit LayerStore(std::shared_ptr<BlockCache> cache = nullptr);

  // Errors: those of SealedLayer::open().
  Result<Layer> open(FileSystem& fs, const std::string& path);

  // The merged index of layers that open() returned, the bottom first: FrozenIndex::merge(). It
  // keeps them open. Errors: those of SealedLayer::take_index().
  Result<std::shared_ptr<const FrozenIndex>> merge(const std::vector<Layer>& layers,
                                                   Sectors disk_end);

  [[nodiscard]] BlockCache& cache() { return *cache_; }

  // What is open now.
  struct Stats {
    size_t layers = 0;
    size_t indexes = 0;
  };
  [[nodiscard]] Stats stats();

 private:
  struct FileIdentity {
    const FileSystem* fs;
    std::string path;
    uint64_t device, inode, size;
    int64_t changed;
    auto operator<=>(const FileIdentity&) const = default;
  };
  // Their addresses tell the layers apart, as an index keeps its layers open.
  struct StackIdentity {
    std::vector<const SealedLayer*> layers;
    Sectors disk_end;
    auto operator<=>(const StackIdentity&) const = default;
  };
  template <typename Identity, typename Shared>
  using Registry = std::map<Identity, std::weak_ptr<const Shared>>;

  template <typename Identity, typename Shared>
  static std::shared_ptr<const Shared> add_or_find(Registry<Identity, Shared>& registry,
                                                   const Identity& identity,
                                                   std::shared_ptr<const Shared> made);

  const std::shared_ptr<BlockCache> cache_;
  Mutex mutex_;
  Registry<FileIdentity, SealedLayer> layers_ OBD_GUARDED_BY(mutex_);
  Registry<StackIdentity, FrozenIndex> indexes_ OBD_GUARDED_BY(mutex_);
};

}  // namespace obd
