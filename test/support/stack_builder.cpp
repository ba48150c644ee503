#include "test/support/stack_builder.h"

#include <algorithm>
#include <array>

#include "core/format/lsmt.h"
#include "core/layer/layer_writer.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

constexpr uint64_t kLongestRun = 40;  // sectors

void put(std::vector<std::byte>& content, uint64_t offset, std::span<const std::byte> data) {
  if (offset >= content.size()) return;  // a lower may be larger than the disk
  const size_t count = std::min<size_t>(data.size(), content.size() - offset);
  std::copy_n(data.begin(), count, content.begin() + static_cast<ptrdiff_t>(offset));
}

void build_lower(FileSystem& fs, Random& random, const std::string& path, uint64_t virtual_size,
                 std::vector<std::byte>& content) {
  LayerOptions options;
  options.virtual_size = virtual_size;
  options.uuid = Uuid::random();
  options.user_tag = "lower";
  options.blob.compression = static_cast<Compression>(random.below(3));
  options.blob.block_size = zfile::kMinBlockSize << random.below(6);
  options.blob.tar = random.percent(30);
  options.blob.threads = 1;
  auto writer = expect_value(LayerWriter::create(fs, path, options));
  const uint64_t sectors = virtual_size / kSectorSize;
  for (uint64_t at = random.below(kLongestRun); at < sectors;) {
    const uint64_t length = std::min(sectors - at, random.between(1, kLongestRun));
    std::vector<std::byte> bytes(length * kSectorSize);
    if (random.percent(30)) {
      expect_ok(writer->append_zero(Sectors(at), Sectors(length)));
    } else {
      random.fill(bytes);
      expect_ok(writer->append_data(Sectors(at), bytes));
    }
    put(content, at * kSectorSize, bytes);
    at += length + (random.percent(60) ? random.below(kLongestRun) : 0);
  }
  expect_ok(writer->finish());
}

std::unique_ptr<File> create_with_header(FileSystem& fs, const std::string& path,
                                         const lsmt::Header& header) {
  auto file = expect_value(fs.create(path, 0644));
  expect_ok(file->write_at(lsmt::encode_header(header), 0));
  return file;
}

lsmt::Header upper_header(uint32_t flags, uint64_t size, const Uuid& uuid) {
  lsmt::Header header;
  header.flags = flags;
  header.virtual_size = size;
  header.uuid = uuid;
  if ((flags & lsmt::kFlagData) == 0) header.index_offset = lsmt::kHeaderSize;
  return header;
}

// Appends as overlaybd does: data in write order, a plain record per write, and padding of invalid
// entries between.
void append_like_upstream(File& data, File& index, Random& random,
                          std::vector<std::byte>& content) {
  const uint64_t sectors = content.size() / kSectorSize;
  uint64_t tail = expect_value(data.info()).size;
  uint64_t log_end = expect_value(index.info()).size;
  for (uint64_t writes = random.between(1, 12); writes > 0; --writes) {
    lsmt::Entry entry;
    entry.offset = Sectors(random.below(sectors));
    entry.length =
        Sectors(std::min(sectors - entry.offset.count(), random.between(1, kLongestRun)));
    entry.physical = Sectors::floor(tail);
    entry.zeroed = random.percent(20);
    std::vector<std::byte> bytes(entry.length.bytes());
    if (!entry.zeroed) {
      random.fill(bytes);
      expect_ok(data.write_at(bytes, tail));
      tail += bytes.size();
    }
    put(content, entry.offset.bytes(), bytes);
    const uint64_t padding = random.percent(20) ? random.between(1, 3) : 0;
    for (uint64_t i = 0; i <= padding; ++i) {
      std::array<std::byte, lsmt::kEntrySize> record;
      lsmt::encode_entry(i == 0 ? entry : lsmt::Entry{}, record);
      expect_ok(index.write_at(record, log_end));
      log_end += record.size();
    }
  }
}

void build_upstream_append(FileSystem& fs, Random& random, const UpperConfig& upper,
                           std::vector<std::byte>& content) {
  const Uuid uuid = Uuid::random();
  const auto data = create_with_header(
      fs, upper.data, upper_header(lsmt::kFlagHeader | lsmt::kFlagData, content.size(), uuid));
  const auto index =
      create_with_header(fs, upper.index, upper_header(lsmt::kFlagHeader, content.size(), uuid));
  append_like_upstream(*data, *index, random, content);
}

// Data at its own place in whole blocks; the index file stays empty.
void build_upstream_sparse(FileSystem& fs, Random& random, const UpperConfig& upper,
                           std::vector<std::byte>& content) {
  auto data =
      create_with_header(fs, upper.data,
                         upper_header(lsmt::kFlagHeader | lsmt::kFlagData | lsmt::kFlagSparse,
                                      content.size(), Uuid::random()));
  (void)expect_value(fs.create(upper.index, 0644));
  expect_ok(data->truncate(lsmt::kHeaderSize + content.size()));
  for (uint64_t writes = random.between(1, 8); writes > 0; --writes) {
    const uint64_t offset = random.below(content.size() / kBlockSize + 1) * kBlockSize;
    if (offset >= content.size()) continue;
    const uint64_t length = std::min(content.size() - offset, random.between(1, 4) * kBlockSize);
    std::vector<std::byte> bytes(length);
    random.fill(bytes);
    expect_ok(data->write_at(bytes, lsmt::kHeaderSize + offset));
    put(content, offset, bytes);
  }
}

}  // namespace

Stack build_stack(FileSystem& fs, Random& random, const StackOptions& options, UpperOrigin origin) {
  Stack stack;
  stack.config.path = "/image/config.v1.json";
  stack.content.resize(options.size);
  for (size_t i = 0; i < options.lowers; ++i) {
    uint64_t size = options.size;
    if (random.percent(30)) size = random.between(1, 2 * size / kSectorSize) * kSectorSize;
    stack.config.lowers.push_back(fmt::format("/image/lower-{}", i));
    build_lower(fs, random, stack.config.lowers.back(), size, stack.content);
  }
  stack.config.upper = UpperConfig{"/image/writable_data", "/image/writable_index"};
  const UpperConfig& upper = *stack.config.upper;
  if (origin != UpperOrigin::upstream) {
    NewLayer layer;
    layer.kind = options.kind;
    layer.virtual_size = options.size;
    layer.uuid = Uuid::random();
    expect_ok(create_writable_layer(fs, upper.data, upper.index, layer));
    if (origin == UpperOrigin::continued_by_upstream) {
      const auto data = expect_value(fs.open(upper.data, Access::read_write));
      const auto index = expect_value(fs.open(upper.index, Access::read_write));
      append_like_upstream(*data, *index, random, stack.content);
    }
  } else if (options.kind == UpperKind::append) {
    build_upstream_append(fs, random, upper, stack.content);
  } else {
    build_upstream_sparse(fs, random, upper, stack.content);
  }
  return stack;
}

}  // namespace obd::test
