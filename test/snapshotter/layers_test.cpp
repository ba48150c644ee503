#include "tools/snapshotter/layers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "core/image/image.h"
#include "core/io/file.h"
#include "core/layer/sealed_layer.h"
#include "test/unit/scratch_folder.h"

namespace obd::snapshotter {
namespace {

using testing::ElementsAre;
using testing::UnorderedElementsAre;

constexpr uint64_t kSize = 16 << 20;

class LayersTest : public testing::Test {
 protected:
  LayersTest() : layers_(*Layers::open(folder_ / "root")) {}

  void make(int64_t id, std::optional<int64_t> parent) {
    ASSERT_TRUE(layers_.make_folders(id, ""));
    const auto made = layers_.make_disk(id, {.kind = UpperKind::append,
                                             .parent = parent,
                                             .size = parent ? 0 : kSize,
                                             .fstype = "ext4",
                                             .mkfs_options = {}});
    ASSERT_TRUE(made) << made.error().message;
  }

  static void write(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }

  std::vector<std::byte> content_of(int64_t id) {
    const auto image =
        Image::open(posix_file_system(), layers_.image(id), {.access = Access::read_only});
    EXPECT_TRUE(image) << image.error().message;
    std::vector<std::byte> bytes(kSize);
    if (image) {
      EXPECT_TRUE((*image)->read(bytes, 0));
    }
    return bytes;
  }

  static mode_t mode_of(const std::string& path) {
    struct stat info{};
    return ::stat(path.c_str(), &info) == 0 ? info.st_mode & 07777 : 0;
  }

  test::ScratchFolder folder_;
  Layers layers_;
};

TEST_F(LayersTest, RefusesARootThatOverlaysCannotName) {
  for (const char* name : {"a:b", "a,b", "a\\b"}) {
    const auto opened = Layers::open(folder_ / name);
    ASSERT_FALSE(opened) << name;
    EXPECT_EQ(opened.error().code, EINVAL);
  }
}

TEST_F(LayersTest, MakesFolders) {
  const mode_t mask = ::umask(077);
  ASSERT_TRUE(layers_.make_folders(1, ""));
  EXPECT_EQ(mode_of(layers_.fs(1)), 0755u);
  ASSERT_EQ(::chmod(layers_.fs(1).c_str(), 01777), 0);
  ASSERT_TRUE(layers_.make_folders(2, layers_.fs(1)));
  EXPECT_EQ(mode_of(layers_.fs(2)), 01777u);
  ::umask(mask);
  EXPECT_THAT(*layers_.list(), UnorderedElementsAre(1, 2));
  ASSERT_TRUE(layers_.remove(1));
  ASSERT_TRUE(layers_.remove(1));
  EXPECT_THAT(*layers_.list(), ElementsAre(2));
}

TEST_F(LayersTest, StacksDisks) {
  make(1, std::nullopt);
  EXPECT_EQ(*layers_.disk_size(1), kSize);
  EXPECT_EQ(*layers_.sealed_layer(1), std::nullopt);
  ASSERT_TRUE(layers_.seal(1));
  EXPECT_EQ(**layers_.sealed_layer(1), layers_.block(1) + "/writable_data");
  make(2, 1);
  EXPECT_EQ(*layers_.disk_size(2), kSize);
  const auto config = load_config(posix_file_system(), layers_.image(2));
  ASSERT_TRUE(config);
  EXPECT_THAT(config->lowers, ElementsAre(layers_.block(1) + "/writable_data"));
  ASSERT_TRUE(layers_.seal(2));
  EXPECT_TRUE(layers_.has_sealed_image(2));
  // The parent's UUID is the layer's parent.
  const auto below = SealedLayer::open(posix_file_system(), **layers_.sealed_layer(1));
  const auto top = SealedLayer::open(posix_file_system(), **layers_.sealed_layer(2));
  EXPECT_EQ((*top)->trailer().parent_uuid, (*below)->trailer().uuid);
}

TEST_F(LayersTest, SealsByACopyAndRemovesTheOriginalLater) {
  make(1, std::nullopt);
  const std::vector<std::byte> before = content_of(1);
  const std::string device = folder_ / "device";
  write(device, std::string(reinterpret_cast<const char*>(before.data()), before.size()));
  const auto sealed = layers_.seal_frozen(1, device);
  ASSERT_TRUE(sealed) << sealed.error().message;
  EXPECT_TRUE(content_of(1) == before);
  EXPECT_EQ(**layers_.sealed_layer(1), layers_.block(1) + "/overlaybd.sealed");
  EXPECT_TRUE(layers_.has_leftovers(1));
  layers_.remove_leftovers(1);
  EXPECT_FALSE(layers_.has_leftovers(1));
  EXPECT_FALSE(std::filesystem::exists(layers_.block(1) + "/writable_data"));
  EXPECT_TRUE(content_of(1) == before);
}

TEST_F(LayersTest, AdoptsABlob) {
  make(1, std::nullopt);
  ASSERT_TRUE(layers_.seal(1));
  make(2, 1);
  // What was unpacked onto disk 2 is a layer.
  const std::string mounted = folder_ / "mounted";
  std::filesystem::create_directory(mounted);
  std::filesystem::copy_file(**layers_.sealed_layer(1), mounted + "/overlaybd.commit");
  EXPECT_TRUE(*layers_.is_blob_alone(mounted, ""));
  ASSERT_TRUE(layers_.take_blob(2, mounted));
  ASSERT_TRUE(layers_.adopt_blob(2, 1));
  ASSERT_TRUE(layers_.adopt_blob(2, 1));  // after a crash
  const auto config = load_config(posix_file_system(), layers_.image(2));
  EXPECT_THAT(config->lowers, ElementsAre(layers_.block(1) + "/writable_data",
                                          layers_.fs(2) + "/overlaybd.commit"));
  EXPECT_FALSE(std::filesystem::exists(layers_.block(2) + "/writable_data"));
}

TEST_F(LayersTest, RefusesABlobThatIsNone) {
  ASSERT_TRUE(layers_.make_folders(1, ""));
  write(layers_.fs(1) + "/overlaybd.commit", "no layer");
  EXPECT_FALSE(layers_.adopt_blob(1, std::nullopt));
}

TEST_F(LayersTest, TakesAFileOfTheBlobsNameAmongOthersForAFile) {
  const std::string in = folder_ / "in";
  const std::string below = folder_ / "below";
  for (const auto& path : {in, below}) std::filesystem::create_directory(path);
  EXPECT_FALSE(*layers_.is_blob_alone(in, ""));
  write(in + "/overlaybd.commit", "x");
  std::filesystem::create_directory(in + "/lost+found");
  EXPECT_TRUE(*layers_.is_blob_alone(in, ""));
  write(in + "/bin", "x");
  EXPECT_FALSE(*layers_.is_blob_alone(in, ""));
  EXPECT_FALSE(*layers_.is_blob_alone(in, below));
  write(below + "/bin", "x");
  EXPECT_TRUE(*layers_.is_blob_alone(in, below));
  write(below + "/etc", "x");
  EXPECT_FALSE(*layers_.is_blob_alone(in, below));
  std::filesystem::remove(in + "/overlaybd.commit");
  std::filesystem::create_symlink("/etc/passwd", in + "/overlaybd.commit");
  EXPECT_FALSE(*layers_.is_blob_alone(in, ""));
}

TEST_F(LayersTest, CountsWhatIsAllocatedAndHardLinksOnce) {
  ASSERT_TRUE(layers_.make_folders(1, ""));
  const auto before = layers_.usage(1);
  write(layers_.fs(1) + "/a", std::string(100'000, 'x'));
  std::filesystem::create_hard_link(layers_.fs(1) + "/a", layers_.fs(1) + "/b");
  const auto after = layers_.usage(1);
  EXPECT_EQ(after->inodes, before->inodes + 1);
  EXPECT_GE(after->size, before->size + 100'000);
  EXPECT_LT(after->size, before->size + 200'000);
}

}  // namespace
}  // namespace obd::snapshotter
