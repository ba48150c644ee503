// Committing an upper of 128 MiB, on a tmpfs. Arguments: compression (0: none, 1: lz4, 2: zstd), of
// blocks of 4 KiB; threads.

#include <benchmark/benchmark.h>

#include <vector>

#include "core/image/commit.h"
#include "core/image/image.h"
#include "test/bench/bench_images.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

constexpr size_t kContent = size_t{128} << 20;

void BM_Commit(benchmark::State& state) {
  const BenchFolder folder;
  FileSystem& fs = posix_file_system();
  const ImageConfig config = make_empty_image(fs, folder.path(), UpperKind::append, kContent);
  {
    const auto image = expect_value(Image::open(fs, config, {}));
    expect_ok(image->write(program_bytes(kContent), 0));
    expect_ok(image->close());
  }
  LayerOutput output{.path = folder / "layer"};
  output.options.overwrite = true;
  output.options.blob.compression = static_cast<Compression>(state.range(0));
  output.options.blob.threads = static_cast<unsigned>(state.range(1));
  for (auto _ : state) {
    benchmark::DoNotOptimize(expect_value(commit_upper(fs, config, output, nullptr)));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kContent));
}

BENCHMARK(BM_Commit)
    ->ArgNames({"compression", "threads"})
    ->ArgsProduct({{0, 1, 2}, {1, 2}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace obd::test
