#include "core/layer/layer_store.h"

#include <algorithm>
#include <utility>

namespace obd {
namespace {

// An index and what it leads to.
struct Stack {
  std::vector<LayerStore::Layer> layers;
  FrozenIndex index;
};

template <typename Registry, typename Identity>
auto find(const Registry& registry, const Identity& identity) {
  const auto found = registry.find(identity);
  return found == registry.end() ? nullptr : found->second.lock();
}

template <typename Registry>
void forget_expired(Registry& registry) {
  std::erase_if(registry, [](const auto& entry) { return entry.second.expired(); });
}

}  // namespace

LayerStore::LayerStore(std::shared_ptr<BlockCache> cache)
    : cache_(cache ? std::move(cache)
                   : std::make_shared<BlockCache>(BlockCache::kDefaultCapacity)) {}

// Somebody else may have been faster.
template <typename Identity, typename Shared>
std::shared_ptr<const Shared> LayerStore::add_or_find(Registry<Identity, Shared>& registry,
                                                      const Identity& identity,
                                                      std::shared_ptr<const Shared> made) {
  if (auto there = find(registry, identity)) return there;
  // Only who adds something has to look at all that is there.
  forget_expired(registry);
  registry[identity] = made;
  return made;
}

Result<LayerStore::Layer> LayerStore::open(FileSystem& fs, const std::string& path) {
  OBD_TRY_ASSIGN(auto file, fs.open(path, Access::read_only));
  OBD_TRY_ASSIGN(const FileInfo info, file->info());
  const FileIdentity identity{&fs, path, info.device, info.inode, info.size, info.changed};
  {
    const MutexLock guard(mutex_);
    if (Layer layer = find(layers_, identity)) return layer;
  }
  OBD_TRY_ASSIGN(Layer layer, SealedLayer::open(std::move(file), cache_));
  const MutexLock guard(mutex_);
  return add_or_find(layers_, identity, std::move(layer));
}

Result<std::shared_ptr<const FrozenIndex>> LayerStore::merge(const std::vector<Layer>& layers,
                                                             Sectors disk_end) {
  StackIdentity identity;
  // Disks that are larger than what is in the layers share an index whatever their sizes.
  for (const Layer& layer : layers) {
    identity.layers.push_back(layer.get());
    identity.disk_end = std::max(identity.disk_end, layer->end());
  }
  identity.disk_end = std::min(identity.disk_end, disk_end);
  {
    const MutexLock guard(mutex_);
    if (auto index = find(indexes_, identity)) return index;
  }
  std::vector<std::vector<lsmt::PackedEntry>> entries;
  for (const Layer& layer : layers) {
    OBD_TRY_ASSIGN(auto of_layer, layer->take_index());
    entries.push_back(std::move(of_layer));
  }
  const auto stack =
      std::make_shared<const Stack>(Stack{layers, FrozenIndex::merge(entries, identity.disk_end)});
  std::shared_ptr<const FrozenIndex> index(stack, &stack->index);
  const MutexLock guard(mutex_);
  return add_or_find(indexes_, identity, std::move(index));
}

LayerStore::Stats LayerStore::stats() {
  const MutexLock guard(mutex_);
  forget_expired(layers_);
  forget_expired(indexes_);
  return {.layers = layers_.size(), .indexes = indexes_.size()};
}

}  // namespace obd
