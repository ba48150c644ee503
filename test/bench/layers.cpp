// Makes a stack of sealed layers to measure on, and the same disk in other forms: a raw file, and
// each layer alone as a sparse raw file, from which a chain of qcow2 files can be filled.
// `obd_bench_layers --help` lists the options.
//
// The bottom layer covers the disk, each one above it has extents at random places. What a block
// holds depends on its number and the seed alone, so stacks of any depth are the same disk: half of
// each block is random bytes, the other half is easy to compress.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/image/config.h"
#include "core/io/posix_file.h"
#include "core/layer/layer_writer.h"
#include "test/support/random.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;
constexpr uint64_t kMostLayers = 255;
constexpr uint64_t kChunk = 256;  // blocks that are written at once

struct Options {
  std::string directory;
  uint64_t layers = 32;
  uint64_t extents = 2000;                        // of each layer but the bottom one
  std::vector<uint64_t> lengths = {4096, 65536};  // of extents, bytes: shortest, longest
  uint64_t size = uint64_t{1} << 30;              // of the disk, bytes
  bool scattered = false;
  uint64_t seed = 1;
  Compression compression = Compression::none;
  uint32_t compressed_block = zfile::kDefaultBlockSize;
  bool copies = false;
  std::string raw;
};

// The value is an exit status when there is nothing more to do.
std::optional<int> parse(int argc, char** argv, Options& options) {
  CLI::App app(
      "Makes a stack of sealed layers to measure on: DIR/layer-001 (the bottom) and up, "
      "and DIR/config.v1.json.");
  const CLI::AsSizeValue size(/*kb_is_1000=*/false);
  app.add_option("directory", options.directory, "Where the layers go; must not exist")
      ->required()
      ->type_name("DIR");
  app.add_option("--layers", options.layers, "How many (32)")
      ->check(CLI::Range(uint64_t{1}, kMostLayers));
  app.add_option("--extents", options.extents,
                 "Extents at random places in each layer above the bottom one, which covers the "
                 "disk (2000)");
  app.add_option("--lengths", options.lengths, "Shortest and longest extent (4K:64K)")
      ->delimiter(':')
      ->expected(2)
      ->transform(size)
      ->type_name("MIN:MAX");
  app.add_option("--size", options.size, "Of the disk (1G)")->transform(size);
  app.add_flag("--scattered", options.scattered,
               "Instead, each 4 KiB block is in one layer, and the next block in another");
  app.add_option("--seed", options.seed, "Of places and content (1)");
  app.add_option("--compression", options.compression, "How the layers are stored (none)")
      ->transform(CLI::CheckedTransformer(std::map<std::string, Compression>{
          {"none", Compression::none}, {"lz4", Compression::lz4}, {"zstd", Compression::zstd}}));
  app.add_option("--block-size", options.compressed_block, "Compressed together (4K)")
      ->transform(size);
  app.add_option("--raw", options.raw, "Also make this file, the whole disk")->type_name("FILE");
  app.add_flag("--copies", options.copies,
               "Also make DIR/layer-001.raw and so on: what that layer holds, and holes");
  try {
    app.parse(argc, argv);
    const auto in_blocks = [](uint64_t bytes) {
      return bytes != 0 && is_aligned(bytes, kBlockSize);
    };
    if (!in_blocks(options.size) || options.size > kMaxDiskSize)
      throw CLI::ValidationError("--size", "must be a multiple of 4096");
    if (!in_blocks(options.lengths[0]) || !in_blocks(options.lengths[1]) ||
        options.lengths[0] > options.lengths[1] || options.lengths[1] > options.size)
      throw CLI::ValidationError("--lengths", "must be multiples of 4096 in ascending order");
    if (options.scattered && options.layers == 1)
      throw CLI::ValidationError("--scattered", "needs --layers of at least 2");
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  return std::nullopt;
}

// In blocks.
struct Extent {
  uint64_t first;
  uint64_t count;
};
using Extents = std::vector<Extent>;  // ascending, without overlap

Extents random_extents(const Options& options, Random& random) {
  const uint64_t blocks = options.size / kBlockSize;
  Extents extents;
  for (uint64_t i = 0; i < options.extents; ++i) {
    const uint64_t first = random.below(blocks);
    const uint64_t count =
        random.between(options.lengths[0] / kBlockSize, options.lengths[1] / kBlockSize);
    extents.push_back({first, std::min(count, blocks - first)});
  }
  std::ranges::sort(extents, {}, &Extent::first);
  for (size_t i = 0; i + 1 < extents.size(); ++i)
    extents[i].count = std::min(extents[i].count, extents[i + 1].first - extents[i].first);
  std::erase_if(extents, [](const Extent& extent) { return extent.count == 0; });
  return extents;
}

// What each layer holds, bottom first.
std::vector<Extents> plan(const Options& options) {
  Random random(options.seed);
  std::vector<Extents> layers(options.layers);
  const uint64_t blocks = options.size / kBlockSize;
  if (options.scattered) {
    uint64_t layer = 0;
    for (uint64_t block = 0; block < blocks; ++block) {
      layer = (layer + random.between(1, options.layers - 1)) % options.layers;
      layers[layer].push_back({block, 1});
    }
  } else {
    layers[0].push_back({0, blocks});
    for (size_t i = 1; i < layers.size(); ++i) layers[i] = random_extents(options, random);
  }
  return layers;
}

void fill(std::span<std::byte> out, uint64_t block, uint64_t seed) {
  for (; !out.empty(); out = out.subspan(kBlockSize), ++block) {
    Random random((seed << 40) + block);
    random.fill(out.first(kBlockSize / 2));
    std::ranges::fill(out.subspan(kBlockSize / 2, kBlockSize / 2), static_cast<std::byte>(block));
  }
}

std::unique_ptr<File> create_sparse(FileSystem& fs, const std::string& path, uint64_t size) {
  auto file = expect_value(fs.create(path, 0644));
  expect_ok(file->truncate(size));
  return file;
}

// Makes one layer; `raw`, the whole disk, may be null.
void make_layer(FileSystem& fs, const Options& options, const std::string& path,
                const Extents& extents, File* raw) {
  LayerOptions layer;
  layer.virtual_size = options.size;
  layer.uuid = Uuid::random();
  layer.blob.compression = options.compression;
  layer.blob.block_size = options.compressed_block;
  auto writer = expect_value(LayerWriter::create(fs, path, layer));
  const auto copy = options.copies ? create_sparse(fs, path + ".raw", options.size) : nullptr;
  std::vector<std::byte> buffer(kChunk * kBlockSize);
  for (const Extent& extent : extents) {
    for (uint64_t done = 0; done < extent.count; done += kChunk) {
      const uint64_t block = extent.first + done;
      const auto bytes =
          std::span(buffer).first(std::min(kChunk, extent.count - done) * kBlockSize);
      fill(bytes, block, options.seed);
      const uint64_t offset = block * kBlockSize;
      expect_ok(writer->append_data(Sectors::floor(offset), bytes));
      if (copy) expect_ok(copy->write_at(bytes, offset));
      if (raw != nullptr) expect_ok(raw->write_at(bytes, offset));
    }
  }
  expect_ok(writer->finish());
}

void make_stack(const Options& options) {
  FileSystem& fs = posix_file_system();
  require(std::filesystem::create_directory(options.directory),
          fmt::format("{}: exists already; name a new folder", options.directory));
  const auto raw = options.raw.empty() ? nullptr : create_sparse(fs, options.raw, options.size);
  ImageConfig config;
  config.path = fmt::format("{}/{}", options.directory, kConfigName);
  for (const Extents& extents : plan(options)) {
    config.lowers.push_back(fmt::format("layer-{:03}", config.lowers.size() + 1));
    make_layer(fs, options, fmt::format("{}/{}", options.directory, config.lowers.back()), extents,
               raw.get());
  }
  expect_ok(save_config(fs, config));
}

}  // namespace
}  // namespace obd::test

int main(int argc, char** argv) {
  using namespace obd::test;
  try {
    Options options;
    if (const auto status = parse(argc, argv, options)) return *status;
    make_stack(options);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "obd_bench_layers: {}\n", error.what());
    return kExitFailure;
  }
}
