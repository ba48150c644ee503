// What reading takes in the engine alone, in one thread, on a tmpfs.

#include <benchmark/benchmark.h>

#include <memory>
#include <numeric>
#include <vector>

#include "core/image/image.h"
#include "core/layer/layer_writer.h"
#include "test/bench/bench_images.h"
#include "test/support/random.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

constexpr uint64_t kDiskBlocks = 65536;  // 256 MiB, all of it data

void read_blocks(benchmark::State& state, const Image& image) {
  std::vector<std::byte> block(kBlockSize);
  Random random(kBenchSeed);
  for (auto _ : state) {
    expect_ok(image.read(block, random.below(image.size() / kBlockSize) * kBlockSize));
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations());
}

// Every block of the disk is in one of the lowers, each block in another than its neighbours.
void BM_ReadLowers(benchmark::State& state) {
  const BenchFolder folder;
  FileSystem& fs = posix_file_system();
  const auto lowers = static_cast<uint64_t>(state.range(0));
  const std::vector<std::byte> data = program_bytes(kBlockSize);
  ImageConfig config;
  config.path = folder / "config.v1.json";
  for (uint64_t layer = 0; layer < lowers; ++layer) {
    LayerOptions options;
    options.virtual_size = kDiskBlocks * kBlockSize;
    config.lowers.push_back(folder / ("lower-" + std::to_string(layer)));
    const auto writer = expect_value(LayerWriter::create(fs, config.lowers.back(), options));
    for (uint64_t block = layer; block < kDiskBlocks; block += lowers) {
      expect_ok(writer->append_data(Sectors::floor(block * kBlockSize), data));
    }
    expect_ok(writer->finish());
  }
  const auto image = expect_value(Image::open(fs, config, {.access = Access::read_only}));
  read_blocks(state, *image);
}

// An image whose upper holds every block of the disk, written in a random order.
std::unique_ptr<Image> scattered_upper(const BenchFolder& folder, UpperKind kind) {
  FileSystem& fs = posix_file_system();
  const ImageConfig config = make_empty_image(fs, folder.path(), kind, kDiskBlocks * kBlockSize);
  auto image = expect_value(Image::open(fs, config, {}));
  const std::vector<std::byte> data = program_bytes(kBlockSize);
  std::vector<uint64_t> blocks(kDiskBlocks);
  std::iota(blocks.begin(), blocks.end(), 0);
  Random random(kBenchSeed);
  for (size_t i = blocks.size(); i > 1; --i) std::swap(blocks[i - 1], blocks[random.below(i)]);
  for (const uint64_t block : blocks) expect_ok(image->write(data, block * kBlockSize));
  return image;
}

template <UpperKind kKind>
void BM_ReadUpper(benchmark::State& state) {
  const BenchFolder folder;
  read_blocks(state, *scattered_upper(folder, kKind));
}

// 1 MiB that lies in 256 places of an append layer.
void BM_ReadScattered(benchmark::State& state) {
  const BenchFolder folder;
  const auto image = scattered_upper(folder, UpperKind::append);
  std::vector<std::byte> buffer(size_t{1} << 20);
  Random random(kBenchSeed);
  for (auto _ : state) {
    expect_ok(image->read(buffer, random.below(image->size() / buffer.size()) * buffer.size()));
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(buffer.size()));
}

BENCHMARK(BM_ReadLowers)->ArgName("lowers")->Arg(1)->Arg(2)->Arg(32)->Arg(255);
BENCHMARK(BM_ReadUpper<UpperKind::append>)->Name("BM_ReadUpper/append");
BENCHMARK(BM_ReadUpper<UpperKind::sparse>)->Name("BM_ReadUpper/sparse");
BENCHMARK(BM_ReadScattered);

}  // namespace
}  // namespace obd::test
