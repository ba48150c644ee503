// Random 4 KiB reads of a compressed layer without a cache: each reads, checks and decompresses a
// block. Arguments: compression (1: lz4, 2: zstd), block size in KiB.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <span>
#include <vector>

#include "core/zfile/blob_writer.h"
#include "core/zfile/open_blob.h"
#include "test/bench/bench_images.h"
#include "test/support/random.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

constexpr size_t kContent = size_t{64} << 20;

void BM_ZfileRead(benchmark::State& state) {
  const BenchFolder folder;
  FileSystem& fs = posix_file_system();
  const std::vector<std::byte> content = program_bytes(kContent);
  BlobOptions options;
  options.compression = static_cast<Compression>(state.range(0));
  options.block_size = static_cast<uint32_t>(state.range(1)) << 10;
  const auto writer = expect_value(BlobWriter::create(fs, folder / "blob", options, false));
  expect_ok(writer->append(content));
  expect_ok(writer->finish());

  const auto blob = expect_value(open_blob(fs, folder / "blob", nullptr));
  std::vector<std::byte> block(kBlockSize);
  Random random(kBenchSeed);
  for (auto _ : state) {
    expect_ok(read_exactly(*blob, block, random.below(kContent / kBlockSize) * kBlockSize));
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations());
  state.SetLabel(to_text(blob->container()));
}

BENCHMARK(BM_ZfileRead)->ArgNames({"compression", "KiB"})->ArgsProduct({{1, 2}, {4, 64}});

}  // namespace
}  // namespace obd::test
