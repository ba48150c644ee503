#include "test/bench/bench_images.h"

#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <span>

#include "test/support/random.h"
#include "test/support/seeded.h"

namespace obd::test {

BenchFolder::BenchFolder() {
  const char* parent = ::getenv("OBD_BENCH_DIR");
  path_ = std::string(parent != nullptr ? parent : "/dev/shm") + "/obd-bench-XXXXXX";
  require(::mkdtemp(path_.data()) != nullptr, "cannot make a folder " + path_);
}

BenchFolder::~BenchFolder() { std::filesystem::remove_all(path_); }

void make_hollow_layer(FileSystem& fs, const std::string& path,
                       const std::vector<lsmt::Entry>& entries, uint64_t virtual_size) {
  lsmt::Header header;
  header.virtual_size = virtual_size;
  header.index_offset = lsmt::kHeaderSize;
  for (const lsmt::Entry& entry : entries) {
    header.index_offset = std::max(header.index_offset, (entry.physical + entry.length).bytes());
  }
  header.index_size = entries.size();
  std::vector<std::byte> index(entries.size() * lsmt::kEntrySize);
  for (size_t i = 0; i < entries.size(); ++i) {
    lsmt::encode_entry(entries[i],
                       std::span(index).subspan(i * lsmt::kEntrySize).first<lsmt::kEntrySize>());
  }
  const auto file = expect_value(fs.create(path, 0644));
  header.flags = lsmt::kFlagHeader | lsmt::kFlagData | lsmt::kFlagSealed;
  expect_ok(file->write_at(lsmt::encode_header(header), 0));
  expect_ok(file->write_at(index, header.index_offset));
  header.flags = lsmt::kFlagData | lsmt::kFlagSealed;
  expect_ok(file->write_at(lsmt::encode_header(header),
                           align_up(header.index_offset + index.size(), kBlockSize)));
}

ImageConfig make_scattered_lowers(FileSystem& fs, const BenchFolder& folder,
                                  const ScatteredStack& stack) {
  Random random(kBenchSeed);
  const uint64_t per_layer = stack.extents / stack.layers;
  const uint64_t spacing = stack.disk_blocks() / per_layer;
  ImageConfig config;
  config.path = folder / "config.v1.json";
  for (size_t layer = 0; layer < stack.layers; ++layer) {
    std::vector<lsmt::Entry> entries(per_layer);
    for (uint64_t i = 0; i < per_layer; ++i) {
      const uint64_t block = i * spacing + random.below(spacing);
      entries[i] = {.offset = Sectors::floor(block * kBlockSize),
                    .length = kSectorsPerBlock,
                    .physical = Sectors::floor((i + 1) * kBlockSize),
                    .zeroed = false};
    }
    config.lowers.push_back(folder / ("lower-" + std::to_string(layer)));
    make_hollow_layer(fs, config.lowers.back(), entries, stack.disk_blocks() * kBlockSize);
  }
  return config;
}

ImageConfig make_empty_image(FileSystem& fs, const std::string& folder, UpperKind kind,
                             uint64_t virtual_size) {
  ImageConfig config;
  config.path = folder + "/config.v1.json";
  config.upper = UpperConfig{folder + "/writable_data", folder + "/writable_index"};
  NewLayer layer;
  layer.kind = kind;
  layer.virtual_size = virtual_size;
  layer.uuid = Uuid::random();
  expect_ok(create_writable_layer(fs, config.upper->data, config.upper->index, layer));
  return config;
}

std::vector<std::byte> program_bytes(size_t size) {
  const auto file = expect_value(posix_file_system().open("/proc/self/exe", Access::read_only));
  const uint64_t length = expect_value(file->info()).size;
  std::vector<std::byte> bytes(size);
  for (size_t at = 0; at < size; at += length) {
    expect_ok(
        read_exactly(*file, std::span(bytes).subspan(at, std::min<size_t>(length, size - at)), 0));
  }
  return bytes;
}

}  // namespace obd::test
