// What a request of an ordinary shape does not do: allocate memory, or copy its payload.
//
// The files are real ones. Every transfer between them and memory is noted, so that a payload is
// known by its address.

#include <gtest/gtest.h>

#include <stdlib.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/image/image.h"
#include "core/layer/layer_writer.h"
#include "test/support/forwarding_file.h"
#include "test/support/random.h"

namespace {

std::atomic<uint64_t> allocations = 0;

}  // namespace

// Not inlined: the compiler would take malloc() and delete for a mismatched pair.
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void* operator new(size_t size, std::align_val_t alignment) {
  ++allocations;
  const auto unit = static_cast<size_t>(alignment);
  void* memory = std::aligned_alloc(unit, (size + unit - 1) / unit * unit);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace obd::test {
namespace {

constexpr uint64_t kDiskBlocks = 4096;
constexpr size_t kSeveral = 16;

struct Transfer {
  const std::byte* memory = nullptr;
  size_t size = 0;
  bool operator==(const Transfer&) const = default;
};

// The latest transfers; noting one takes no memory.
class Transfers {
 public:
  void add(std::span<const std::byte> bytes) {
    if (count_ < noted_.size()) noted_[count_] = {bytes.data(), bytes.size()};
    ++count_;
  }
  void clear() { count_ = 0; }
  [[nodiscard]] std::vector<Transfer> all() const {
    return {noted_.begin(),
            noted_.begin() + static_cast<ptrdiff_t>(std::min(count_, noted_.size()))};
  }

 private:
  std::array<Transfer, 1024> noted_;
  size_t count_ = 0;
};

// Whether the host has files in its page cache, and what it was asked to bring there.
struct Distance {
  bool is_far = false;
  uint64_t looks = 0;
  std::vector<ByteRange> asked_for;
};

class WatchedFile final : public ForwardingFile {
 public:
  WatchedFile(std::unique_ptr<File> file, Transfers& transfers, Distance& distance)
      : ForwardingFile(std::move(file)), transfers_(transfers), distance_(distance) {}

  Result<size_t> read_at(std::span<std::byte> out, uint64_t offset) const override {
    transfers_.add(out);
    return ForwardingFile::read_at(out, offset);
  }
  Result<void> write_at(std::span<const std::byte> data, uint64_t offset) override {
    transfers_.add(data);
    return ForwardingFile::write_at(data, offset);
  }
  void prefetch(ByteRange range) const override { distance_.asked_for.push_back(range); }
  bool is_near(uint64_t) const override {
    ++distance_.looks;
    return !distance_.is_far;
  }

 private:
  Transfers& transfers_;
  Distance& distance_;
};

class WatchedHost final : public FileSystem {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, Access access) override {
    return watched(host_.open(path, access));
  }
  Result<std::unique_ptr<File>> create(const std::string& path, mode_t mode) override {
    return watched(host_.create(path, mode));
  }
  Result<void> rename(const std::string& from, const std::string& to) override {
    return host_.rename(from, to);
  }
  Result<void> rename_new(const std::string& from, const std::string& to) override {
    return host_.rename_new(from, to);
  }
  Result<void> remove(const std::string& path) override { return host_.remove(path); }
  Result<void> sync_directory(const std::string& path) override {
    return host_.sync_directory(path);
  }
  Result<bool> exists(const std::string& path) override { return host_.exists(path); }
  Result<std::string> canonical(const std::string& path) override { return host_.canonical(path); }
  Result<std::string> boot_id() override { return host_.boot_id(); }

  Transfers transfers;
  Distance distance;

 private:
  Result<std::unique_ptr<File>> watched(Result<std::unique_ptr<File>> file) {
    if (!file) return file;
    return std::make_unique<WatchedFile>(std::move(*file), transfers, distance);
  }

  FileSystem& host_ = posix_file_system();
};

class HotPath : public testing::Test {
 protected:
  HotPath() {
    std::string name = testing::TempDir() + "/obd-hot-path.XXXXXX";
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("there is no temporary folder");
    folder_ = name;
    Random(1).fill(buffer_);
  }
  ~HotPath() override { std::filesystem::remove_all(folder_); }

  template <typename T>
  static T value(Result<T> result) {
    if (!result) throw std::runtime_error(result.error().message);
    return std::move(*result);
  }
  static void ok(const Result<void>& result) {
    if (!result) throw std::runtime_error(result.error().message);
  }

  // A lower with every second block of the disk, from block `first` on, or with all of them.
  void add_lower(Compression compression, uint64_t first, uint64_t step) {
    config_.lowers.push_back(folder_ + "/lower-" + std::to_string(config_.lowers.size()));
    LayerOptions options;
    options.virtual_size = kDiskBlocks * kBlockSize;
    options.uuid = Uuid::random();
    options.blob.compression = compression;
    options.blob.threads = 1;
    auto writer = value(LayerWriter::create(host_, config_.lowers.back(), options));
    for (uint64_t block = first; block < kDiskBlocks; block += step) {
      ok(writer->append_data(Sectors::floor(block * kBlockSize), one_block()));
    }
    ok(writer->finish());
  }

  Image& open(std::optional<UpperKind> kind = std::nullopt) {
    config_.path = folder_ + "/config.v1.json";
    if (kind) {
      config_.upper = UpperConfig{folder_ + "/writable_data", folder_ + "/writable_index"};
      NewLayer layer;
      layer.kind = *kind;
      layer.virtual_size = kDiskBlocks * kBlockSize;
      layer.uuid = Uuid::random();
      ok(create_writable_layer(host_, config_.upper->data, config_.upper->index, layer));
    }
    OpenOptions options;
    options.reclaim.on = true;
    image_ = value(Image::open(host_, config_, options));
    return *image_;
  }

  std::span<const std::byte> one_block() const { return std::span(buffer_).first(kBlockSize); }
  Transfer block_of_buffer(size_t number) const {
    return {buffer_.data() + number * kBlockSize, kBlockSize};
  }

  void write(uint64_t block) { ok(image_->write(one_block(), block * kBlockSize)); }
  void read(uint64_t block, size_t count) {
    ok(image_->read(std::span(buffer_).first(count * kBlockSize), block * kBlockSize));
  }

  // How often memory was allocated in a call; what it transferred is in transfers().
  template <typename Call>
  uint64_t allocations_in(Call&& call) {
    host_.transfers.clear();
    const uint64_t before = allocations;
    call();
    return allocations - before;
  }
  std::vector<Transfer> transfers() const { return host_.transfers.all(); }

  // Reads of `count` extents of a block each, somewhere else every time, go into the reader's
  // memory block by block.
  void expect_reads_of(size_t count) {
    read(0, count);
    std::vector<Transfer> expected;
    for (size_t i = 0; i < count; ++i) expected.push_back(block_of_buffer(i));
    for (uint64_t block = 0; block < kDiskBlocks; block += 8 * kSeveral) {
      EXPECT_EQ(allocations_in([&] { read(block, count); }), 0U) << count << " at " << block;
      EXPECT_EQ(transfers(), expected) << count << " at " << block;
    }
  }

  WatchedHost host_;
  std::string folder_;
  ImageConfig config_;
  std::unique_ptr<Image> image_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(kSeveral * kBlockSize);
};

TEST_F(HotPath, ReadsOfRawLowers) {
  add_lower(Compression::none, 0, 2);
  add_lower(Compression::none, 1, 2);
  open();
  expect_reads_of(1);
  expect_reads_of(kSeveral);
}

// Where the host would have to wait for its disk once a piece, all are asked for at the first.
TEST_F(HotPath, ScatteredReadsFromFarAway) {
  add_lower(Compression::none, 0, 2);
  add_lower(Compression::lz4, 1, 2);
  open();
  constexpr size_t kPieces = kSeveral;
  read(0, kPieces);
  EXPECT_GT(host_.distance.looks, 0U);
  EXPECT_LE(host_.distance.looks, 2U);
  EXPECT_TRUE(host_.distance.asked_for.empty());
  host_.distance = {.is_far = true, .looks = 0, .asked_for = {}};
  read(2 * kPieces, kPieces);
  EXPECT_EQ(host_.distance.looks, 1U);
  EXPECT_EQ(host_.distance.asked_for.size(), kPieces);
  // A single piece is read at once.
  host_.distance = {.is_far = true, .looks = 0, .asked_for = {}};
  read(0, 1);
  EXPECT_EQ(host_.distance.looks, 0U);
  EXPECT_TRUE(host_.distance.asked_for.empty());
}

TEST_F(HotPath, ReadsOfRawLowersBelowAnUpper) {
  add_lower(Compression::none, 0, 2);
  add_lower(Compression::none, 1, 2);
  open(UpperKind::append);
  expect_reads_of(1);
  expect_reads_of(kSeveral);
}

// What is decompressed once is copied to the reader, and that is all.
TEST_F(HotPath, ReadsOfCachedCompressedLowers) {
  add_lower(Compression::lz4, 0, 2);
  add_lower(Compression::zstd, 1, 2);
  open();
  for (const size_t count : {size_t{1}, kSeveral}) {
    read(32, count);
    EXPECT_EQ(allocations_in([&] { read(32, count); }), 0U) << count;
    EXPECT_EQ(transfers(), std::vector<Transfer>()) << count;
  }
}

TEST_F(HotPath, ReadsOfAnAppendUpper) {
  open(UpperKind::append);
  for (uint64_t block = kDiskBlocks; block > 0; --block) write(block - 1);  // not one extent
  expect_reads_of(1);
  expect_reads_of(kSeveral);
}

TEST_F(HotPath, ReadsOfASparseUpper) {
  add_lower(Compression::none, 1, 2);
  open(UpperKind::sparse);
  for (uint64_t block = 0; block < kDiskBlocks; block += 2) write(block);
  expect_reads_of(1);
  expect_reads_of(kSeveral);
}

TEST_F(HotPath, WritesInPlaceToASparseUpper) {
  open(UpperKind::sparse);
  for (uint64_t block = 0; block < kDiskBlocks; ++block) write(block);
  for (uint64_t block = 0; block < kDiskBlocks; block += 100) {
    EXPECT_EQ(allocations_in([&] { write(block); }), 0U);
    EXPECT_EQ(transfers(), std::vector{block_of_buffer(0)});
  }
}

TEST_F(HotPath, OverwritesInAnAppendUpper) {
  open(UpperKind::append);
  for (uint64_t block = kDiskBlocks; block > 0; --block) write(block - 1);
  for (uint64_t block = 0; block < kDiskBlocks; block += 100) write(block);
  for (uint64_t block = 0; block < kDiskBlocks; block += 100) {
    EXPECT_EQ(allocations_in([&] { write(block); }), 0U);
    ASSERT_EQ(transfers().size(), 2U);  // the payload and its record
    EXPECT_EQ(transfers()[0], block_of_buffer(0));
    // A record, which now and then begins a block and fills it.
    EXPECT_LE(transfers()[1].size, kBlockSize);
  }
}

// A block that has no extent yet makes one, and the index takes memory for many of them at a time.
TEST_F(HotPath, FirstWritesToAnAppendUpper) {
  open(UpperKind::append);
  write(0);
  std::vector<uint64_t> blocks;
  for (uint64_t block = 2; block < kDiskBlocks; block += 2) blocks.push_back(block);
  Random random(1);
  for (size_t i = blocks.size(); i > 1; --i) std::swap(blocks[i - 1], blocks[random.below(i)]);
  const uint64_t made = allocations_in([&] {
    for (const uint64_t block : blocks) write(block);
  });
  EXPECT_GT(made, 0U);
  EXPECT_LE(made, blocks.size() / 64);
}

}  // namespace
}  // namespace obd::test
