// What opening an image takes, and what an open image costs beside others over the same lowers.

#include <benchmark/benchmark.h>
#include <malloc.h>

#include <filesystem>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "core/image/image.h"
#include "test/bench/bench_images.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

// Arguments: lowers, extents of all of them together.
void BM_Open(benchmark::State& state) {
  const BenchFolder folder;
  FileSystem& fs = posix_file_system();
  const ImageConfig config =
      make_scattered_lowers(fs, folder,
                            {.layers = static_cast<size_t>(state.range(0)),
                             .extents = static_cast<uint64_t>(state.range(1))});
  for (auto _ : state) {
    auto image = expect_value(Image::open(fs, config, {.access = Access::read_only}));
    benchmark::DoNotOptimize(image->size());
    state.PauseTiming();
    image.reset();
    state.ResumeTiming();
  }
  state.SetItemsProcessed(state.iterations() * state.range(1));
}

size_t heap() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

size_t descriptors() {
  return static_cast<size_t>(
      std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

// A thousand images over the same 32 lowers with 100,000 extents, each with an upper of its own or
// without one. The argument is what they have: 0, no upper; 1, an append one; 2, a sparse one.
void BM_OpenAnother(benchmark::State& state) {
  constexpr size_t kImages = 1000;
  const BenchFolder folder;
  FileSystem& fs = posix_file_system();
  const ScatteredStack stack{.layers = 32, .extents = 100'000};
  ImageConfig config = make_scattered_lowers(fs, folder, stack);
  std::vector<ImageConfig> configs;
  for (size_t i = 0; i <= kImages; ++i) {
    if (state.range(0) != 0) {
      const std::string own = folder / ("image-" + std::to_string(i));
      std::filesystem::create_directory(own);
      config.upper =
          make_empty_image(fs, own, state.range(0) == 1 ? UpperKind::append : UpperKind::sparse,
                           stack.disk_blocks() * kBlockSize)
              .upper;
    }
    configs.push_back(config);
  }
  OpenOptions options;
  options.layers = std::make_shared<LayerStore>();
  const size_t empty = heap();
  const auto first = expect_value(Image::open(fs, configs.front(), options));
  const size_t heap_of_first = heap() - empty;
  std::vector<std::unique_ptr<Image>> images(kImages);
  const size_t heap_before = heap();
  const size_t descriptors_before = descriptors();
  size_t next = 0;
  for (auto _ : state) {
    images[next] = expect_value(Image::open(fs, configs[next + 1], options));
    ++next;
  }
  const auto per_image = [&](size_t more) {
    return static_cast<double>(more) / static_cast<double>(kImages);
  };
  state.counters["first_KiB"] = static_cast<double>(heap_of_first) / 1024;
  state.counters["KiB"] = per_image(heap() - heap_before) / 1024;
  state.counters["descriptors"] = per_image(descriptors() - descriptors_before);
}

void stacks(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"lowers", "extents"});
  for (const int64_t lowers : {1, 32, 255}) benchmark->Args({lowers, 1'000'000});
  benchmark->Args({32, 1'000});
}

BENCHMARK(BM_Open)->Apply(stacks)->Unit(benchmark::kMillisecond)->MinTime(2);
BENCHMARK(BM_OpenAnother)
    ->ArgName("upper")
    ->DenseRange(0, 2)
    ->Iterations(1000)
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace obd::test
