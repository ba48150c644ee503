// What many images over the same lowers cost: core/layer/layer_store.h.

#include <gtest/gtest.h>
#include <malloc.h>

#include <filesystem>
#include <iterator>
#include <memory>
#include <vector>

#include "core/image/image.h"
#include "core/layer/layer_writer.h"
#include "test/support/memory_file_system.h"
#include "test/support/seeded.h"
#include "test/unit/scratch_folder.h"

namespace obd::test {
namespace {

constexpr size_t kLowers = 32;
constexpr uint64_t kExtents = 100'000;
constexpr uint64_t kDisk = uint64_t{4} << 30;
constexpr auto kMostOfAnImage = size_t{100} << 10;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kHeapIsCounted = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kHeapIsCounted = false;
#else
constexpr bool kHeapIsCounted = true;
#endif
#else
constexpr bool kHeapIsCounted = true;
#endif

size_t heap() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

// Zero extents all over the disk, which no layer shares with another; every second is compressed.
ImageConfig make_lowers(FileSystem& fs, const std::string& folder, uint64_t extents) {
  ImageConfig config;
  config.path = folder + "/config.v1.json";
  const uint64_t spacing = kDisk / kBlockSize / extents;
  for (size_t layer = 0; layer < kLowers; ++layer) {
    LayerOptions options;
    options.virtual_size = kDisk;
    options.blob.compression = layer % 2 == 0 ? Compression::none : Compression::lz4;
    options.blob.threads = 1;
    config.lowers.push_back(folder + "/lower-" + std::to_string(layer));
    const auto writer = expect_value(LayerWriter::create(fs, config.lowers.back(), options));
    for (uint64_t i = layer; i < extents; i += kLowers) {
      expect_ok(writer->append_zero(Sectors::floor(i * spacing * kBlockSize),
                                    Sectors::floor(kBlockSize)));
    }
    expect_ok(writer->finish());
  }
  return config;
}

TEST(ImageSharing, AThousandWritableImagesTakeLittleMemoryEach) {
  constexpr size_t kImages = 1000;
  MemoryFileSystem fs;
  ImageConfig config = make_lowers(fs, "/layers", kExtents);
  std::vector<ImageConfig> configs;
  for (size_t i = 0; i < kImages; ++i) {
    const std::string folder = "/image-" + std::to_string(i);
    config.path = folder + "/config.v1.json";
    config.upper = UpperConfig{folder + "/writable_data", folder + "/writable_index"};
    NewLayer layer;
    layer.kind = i % 2 == 0 ? UpperKind::append : UpperKind::sparse;
    layer.virtual_size = kDisk + i * kBlockSize;
    layer.uuid = Uuid::random();
    expect_ok(create_writable_layer(fs, config.upper->data, config.upper->index, layer));
    configs.push_back(config);
  }
  OpenOptions options;
  options.layers = std::make_shared<LayerStore>();
  const auto first = expect_value(Image::open(fs, configs[0], options));
  const std::vector<std::byte> data(kBlockSize, std::byte{7});
  std::vector<std::unique_ptr<Image>> images;
  images.reserve(kImages);
  const size_t before = heap();
  for (size_t i = 1; i < kImages; ++i) {
    images.push_back(expect_value(Image::open(fs, configs[i], options)));
    expect_ok(images.back()->write(data, i * kBlockSize));
  }
  if (kHeapIsCounted) {
    EXPECT_LT((heap() - before) / images.size(), kMostOfAnImage);
  }
  const LayerStore::Stats stats = options.layers->stats();
  EXPECT_EQ(stats.layers, kLowers);
  EXPECT_EQ(stats.indexes, 1u);

  std::vector<std::byte> read(kBlockSize);
  for (size_t i = 1; i < kImages; ++i) {
    expect_ok(images[i - 1]->read(read, i * kBlockSize));
    EXPECT_EQ(read, data);
    expect_ok(images[i - 1]->close());
  }
}

size_t descriptors() {
  return static_cast<size_t>(
      std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

TEST(ImageSharing, TheLowersAreOpenOnceAndUntilTheLastImageCloses) {
  const ScratchFolder folder;
  const ImageConfig config = make_lowers(posix_file_system(), folder.path(), 1000);
  OpenOptions options{.access = Access::read_only};
  options.layers = std::make_shared<LayerStore>();
  const size_t before = descriptors();
  std::vector<std::unique_ptr<Image>> images(100);
  for (auto& image : images) {
    image = expect_value(Image::open(posix_file_system(), config, options));
  }
  EXPECT_EQ(descriptors(), before + kLowers);
  images.resize(1);
  EXPECT_EQ(descriptors(), before + kLowers);
  EXPECT_EQ(expect_value(images[0]->layers()).size(), kLowers);
  images.clear();
  EXPECT_EQ(descriptors(), before);
}

TEST(ImageSharing, ImagesWithoutACommonStoreShareNothing) {
  MemoryFileSystem fs;
  const ImageConfig config = make_lowers(fs, "/layers", 1000);
  const OpenOptions options{.access = Access::read_only};
  const auto first = expect_value(Image::open(fs, config, options));
  const uint64_t reads = fs.count(Operation::read);
  const auto second = expect_value(Image::open(fs, config, options));
  EXPECT_GT(fs.count(Operation::read), reads);
}

}  // namespace
}  // namespace obd::test
