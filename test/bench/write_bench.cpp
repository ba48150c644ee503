// What writing takes in the engine alone, in one thread: 4 KiB requests to an image's upper, and
// the records of an index log.

#include <benchmark/benchmark.h>

#include <array>
#include <memory>
#include <vector>

#include "core/image/image.h"
#include "core/layer/index_log.h"
#include "test/bench/bench_images.h"
#include "test/support/memory_file_system.h"
#include "test/support/random.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

// Each is a new extent's worth of the host's memory, so their number is bounded.
constexpr int kWrites = 100'000;
constexpr uint64_t kDiskBlocks = 1 << 18;

void write_blocks(benchmark::State& state, FileSystem& fs, const std::string& folder,
                  UpperKind kind) {
  const ImageConfig config = make_empty_image(fs, folder, kind, kDiskBlocks * kBlockSize);
  const auto image = expect_value(Image::open(fs, config, {}));
  const std::vector<std::byte> data = program_bytes(kBlockSize);
  Random random(kBenchSeed);
  for (auto _ : state) {
    expect_ok(image->write(data, random.below(kDiskBlocks) * kBlockSize));
  }
  state.SetItemsProcessed(state.iterations());
  expect_ok(image->close());
}

template <UpperKind kKind>
void BM_WriteOnTmpfs(benchmark::State& state) {
  const BenchFolder folder;
  write_blocks(state, posix_file_system(), folder.path(), kKind);
}

// What the host's system calls do not take.
template <UpperKind kKind>
void BM_WriteInMemory(benchmark::State& state) {
  MemoryFileSystem fs;
  write_blocks(state, fs, "/image", kKind);
}

void BM_LogAppendOnTmpfs(benchmark::State& state) {
  const BenchFolder folder;
  auto file = expect_value(posix_file_system().create(folder / "log", 0644));
  IndexLog log(std::move(file), {});
  lsmt::Entry entry{.offset = {}, .length = kSectorsPerBlock, .physical = lsmt::kFirstDataSector};
  for (auto _ : state) {
    expect_ok(log.append({&entry, 1}));
    entry.offset += entry.length;
  }
  state.SetItemsProcessed(state.iterations());
}

BENCHMARK(BM_WriteOnTmpfs<UpperKind::append>)->Name("BM_WriteOnTmpfs/append")->Iterations(kWrites);
BENCHMARK(BM_WriteOnTmpfs<UpperKind::sparse>)->Name("BM_WriteOnTmpfs/sparse")->Iterations(kWrites);
BENCHMARK(BM_WriteInMemory<UpperKind::append>)
    ->Name("BM_WriteInMemory/append")
    ->Iterations(kWrites);
BENCHMARK(BM_WriteInMemory<UpperKind::sparse>)
    ->Name("BM_WriteInMemory/sparse")
    ->Iterations(kWrites);
BENCHMARK(BM_LogAppendOnTmpfs);

}  // namespace
}  // namespace obd::test
