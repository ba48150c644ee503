// What opening an image takes, and what an open image costs beside others over the same lowers.

#include <benchmark/benchmark.h>
#include <malloc.h>

#include <filesystem>
#include <memory>
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

void stacks(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"lowers", "extents"});
  for (const int64_t lowers : {1, 32, 255}) benchmark->Args({lowers, 1'000'000});
  benchmark->Args({32, 1'000});
}

BENCHMARK(BM_Open)->Apply(stacks)->Unit(benchmark::kMillisecond)->MinTime(2);

}  // namespace
}  // namespace obd::test
