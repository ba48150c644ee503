// Speed and memory of the two indexes. The argument of most is the number of extents.

#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/format/lsmt.h"
#include "core/index/frozen_index.h"
#include "core/index/live_index.h"
#include "test/support/random.h"

namespace obd::test {
namespace {

constexpr uint64_t kSeed = 1;
constexpr uint64_t kSectorsPerBlock = kBlockSize / kSectorSize;
// Disk blocks for each extent: leaves gaps, so that few writes hit an extent that is there.
constexpr uint64_t kBlocksPerExtent = 64;

Extent block(uint64_t number, uint64_t physical, LayerNumber layer = kUpperLayer) {
  return {Sectors(number * kSectorsPerBlock), Sectors(kSectorsPerBlock), Sectors(physical),
          ExtentKind::data, layer};
}

Extent random_block(Random& random, uint64_t extents) {
  return block(random.below(extents * kBlocksPerExtent), random.below(uint64_t{1} << 50));
}

LiveIndex random_index(Random& random, uint64_t extents) {
  LiveIndex index;
  while (index.extent_count() < extents) {
    index.reserve(1);
    index.insert(random_block(random, extents));
  }
  return index;
}

template <typename Index>
void report_memory(benchmark::State& state, const Index& index) {
  state.counters["bytes_per_extent"] =
      static_cast<double>(index.memory_bytes()) / static_cast<double>(index.extent_count());
}

// 4 KiB writes all over an empty disk until the index holds that many extents.
void BM_LiveFillRandom(benchmark::State& state) {
  const auto extents = static_cast<uint64_t>(state.range(0));
  for (auto _ : state) {
    Random random(kSeed);
    const LiveIndex index = random_index(random, extents);
    benchmark::DoNotOptimize(index.extent_count());
    state.PauseTiming();
    report_memory(state, index);
    state.ResumeTiming();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

// 4 KiB writes in ascending order with gaps.
void BM_LiveFillAscending(benchmark::State& state) {
  const auto extents = static_cast<uint64_t>(state.range(0));
  for (auto _ : state) {
    LiveIndex index;
    for (uint64_t i = 0; i < extents; ++i) {
      index.reserve(1);
      index.insert(block(2 * i, 8 + i * kSectorsPerBlock));
    }
    benchmark::DoNotOptimize(index.extent_count());
    state.PauseTiming();
    report_memory(state, index);
    state.ResumeTiming();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

// 4 KiB writes all over a disk whose every block is an extent: the extents stay as many.
void BM_LiveOverwriteRandom(benchmark::State& state) {
  const auto extents = static_cast<uint64_t>(state.range(0));
  Random random(kSeed);
  LiveIndex index;
  for (uint64_t i = 0; i < extents; ++i) {
    index.reserve(1);
    index.insert(block(i, random.below(uint64_t{1} << 50)));
  }
  for (auto _ : state) {
    index.reserve(1);
    index.insert(block(random.below(extents), random.below(uint64_t{1} << 50)));
  }
  state.SetItemsProcessed(state.iterations());
  report_memory(state, index);
}

// Sequential 4 KiB writes to an append layer: each lengthens the extent before.
void BM_LiveSequential(benchmark::State& state) {
  LiveIndex index;
  uint64_t next = 0;
  for (auto _ : state) {
    index.reserve(1);
    index.insert(block(next, 8 + next * kSectorsPerBlock));
    ++next;
  }
  state.SetItemsProcessed(state.iterations());
}

// Random blocks at a nanosecond each, so that what is measured is what they are looked up in.
class RandomBlocks {
 public:
  explicit RandomBlocks(uint64_t blocks) : blocks_(blocks) {}
  Sectors next() {
    state_ = state_ * 0x5851F42D4C957F2D + 0x14057B7EF767814F;
    return Sectors(((state_ >> 32) * blocks_ >> 32) * kSectorsPerBlock);
  }

 private:
  uint64_t blocks_;  // fewer than 2^32
  uint64_t state_ = kSeed;
};

// What a look-up below costs without the look-up.
void BM_RandomBlocks(benchmark::State& state) {
  RandomBlocks blocks(1'000'000);
  for (auto _ : state) {
    benchmark::DoNotOptimize(blocks.next());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations());
}

template <typename Index>
void look_up(benchmark::State& state, const Index& index, uint64_t disk_blocks) {
  std::array<Extent, 8> out;
  RandomBlocks blocks(disk_blocks);
  for (auto _ : state) {
    const Sectors from = blocks.next();
    benchmark::DoNotOptimize(index.find(from, from + Sectors(kSectorsPerBlock), out));
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations());
  report_memory(state, index);
}

// Where a random 4 KiB block is.
void BM_LiveFind(benchmark::State& state) {
  const auto extents = static_cast<uint64_t>(state.range(0));
  Random random(kSeed);
  const LiveIndex index = random_index(random, extents);
  look_up(state, index, extents * kBlocksPerExtent);
}

// A stack of `layers` layers with `extents` extents in all.
std::vector<std::vector<Extent>> random_stack(Random& random, uint64_t layers, uint64_t extents) {
  const uint64_t per_layer = extents / layers;
  const uint64_t spacing = extents * kBlocksPerExtent / per_layer;
  std::vector<std::vector<Extent>> stack(layers);
  for (uint64_t i = 0; i < layers; ++i) {
    for (uint64_t j = 0; j < per_layer; ++j) {
      stack[i].push_back(block(j * spacing + random.below(spacing), 8 + j * kSectorsPerBlock,
                               static_cast<LayerNumber>(i)));
    }
  }
  return stack;
}

// Arguments: layers, extents of all of them together.
void BM_FrozenMerge(benchmark::State& state) {
  const auto layers = static_cast<uint64_t>(state.range(0));
  const auto extents = static_cast<uint64_t>(state.range(1));
  Random random(kSeed);
  const auto stack = random_stack(random, layers, extents);
  for (auto _ : state) {
    state.PauseTiming();
    auto copy = stack;
    state.ResumeTiming();
    const FrozenIndex index = FrozenIndex::merge(std::move(copy), lsmt::kAddressableEnd);
    benchmark::DoNotOptimize(index.extent_count());
    state.PauseTiming();
    report_memory(state, index);
    state.ResumeTiming();
  }
  state.SetItemsProcessed(state.iterations() * state.range(1));
}

void BM_FrozenFind(benchmark::State& state) {
  const auto layers = static_cast<uint64_t>(state.range(0));
  const auto extents = static_cast<uint64_t>(state.range(1));
  Random random(kSeed);
  const FrozenIndex index =
      FrozenIndex::merge(random_stack(random, layers, extents), lsmt::kAddressableEnd);
  look_up(state, index, extents * kBlocksPerExtent);
}

// The same on a disk whose every block is an extent.
void BM_FrozenFindFull(benchmark::State& state) {
  const auto extents = static_cast<uint64_t>(state.range(0));
  Random random(kSeed);
  std::vector<Extent> layer;
  for (uint64_t i = 0; i < extents; ++i) {
    layer.push_back(block(i, random.below(uint64_t{1} << 50), 0));
  }
  const FrozenIndex index = FrozenIndex::merge({layer}, lsmt::kAddressableEnd);
  look_up(state, index, extents);
}

void sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->Arg(10'000)->Arg(1'000'000)->Arg(10'000'000);
}

void stacks(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"layers", "extents"});
  for (const int64_t extents : {1'000, 10'000, 100'000}) benchmark->Args({32, extents});
  for (const int64_t layers : {1, 16, 32, 255}) benchmark->Args({layers, 1'000'000});
  benchmark->Args({255, 10'000'000});
}

BENCHMARK(BM_LiveFillRandom)->Apply(sizes)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_LiveFillAscending)->Apply(sizes)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_LiveOverwriteRandom)->Apply(sizes);
BENCHMARK(BM_LiveSequential);
BENCHMARK(BM_RandomBlocks);
BENCHMARK(BM_LiveFind)->Apply(sizes);
BENCHMARK(BM_FrozenMerge)->Apply(stacks)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_FrozenFind)->Apply(stacks);
BENCHMARK(BM_FrozenFindFull)->Arg(1'000)->Arg(10'000)->Arg(100'000)->Arg(1'000'000);

}  // namespace
}  // namespace obd::test
