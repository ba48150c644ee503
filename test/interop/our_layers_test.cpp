// What this engine writes obeys every rule that overlaybd's readers apply, and reads there as here.
//
// The judge is upstream_rules.h, which shares no code with the engine.

#include <gtest/gtest.h>

#include <random>

#include "core/layer/layer_writer.h"
#include "test/interop/fixture_set.h"
#include "test/interop/script_model.h"
#include "test/interop/upstream_rules.h"
#include "test/interop/workspace.h"

namespace obd::interop {
namespace {

// Not a multiple of 4 KiB, so that the last block of the disk is a short one.
constexpr uint64_t kDiskSize = 4 * kMiB + 1536;

Bytes base_content() { return random_bytes(77, kDiskSize); }

enum class Mix { writes_only, everything };

// Random operations at any offset, on an image and on its model.
void work(Image& image, FlatDisk& disk, Mix mix, uint32_t seed) {
  std::mt19937 random(seed);
  const auto below = [&](uint64_t limit) {
    return std::uniform_int_distribution<uint64_t>(0, limit - 1)(random);
  };
  for (int i = 0; i < 150; ++i) {
    const uint64_t unit = below(2) == 0 ? 4096 : 1;
    const uint64_t offset = below(kDiskSize / unit) * unit;
    const uint64_t length = std::min(kDiskSize - offset, (1 + below(65536) / unit) * unit);
    const uint64_t kind = mix == Mix::writes_only ? 0 : below(8);
    if (kind < 5) {
      const Bytes data = random_bytes(seed * 1000 + static_cast<uint32_t>(i), length);
      must(image.write(data, offset));
      disk.write(offset, data);
    } else {
      must(kind == 5 ? image.trim(offset, length) : image.zero(offset, length));
      disk.zero(offset, length);
    }
    if (below(40) == 0) must(image.flush());
  }
}

// What overlaybd serves for `layer` over the base.
Bytes foreign_disk(const ForeignLayer& layer, const std::string& data) {
  Bytes disk = base_content();
  paint(layer, data, disk);
  return disk;
}

// A writable image over a base, and the model of its disk.
struct Subject {
  explicit Subject(UpperKind kind)
      : config(make_image(workspace.path(), kind, kDiskSize, base_content())),
        data(workspace / "writable_data"),
        index(workspace / "writable_index") {}

  Workspace workspace;
  std::string config;
  std::string data;
  std::string index;
  FlatDisk disk{base_content()};
};

TEST(OurLayers, FreshAppendPairObeysTheRules) {
  const Subject subject(UpperKind::append);
  EXPECT_NO_THROW(check_append_writer(subject.data, subject.index));
  const ForeignLayer layer = read_append_pair(subject.data, subject.index);
  EXPECT_EQ(layer.header_flags, 0x03U);
  EXPECT_EQ(layer.virtual_size, kDiskSize);
  EXPECT_TRUE(layer.entries.empty());
}

TEST(OurLayers, AppendPairObeysTheRulesAtAnyMoment) {
  Subject subject(UpperKind::append);
  const auto judge = [&](const char* moment) {
    SCOPED_TRACE(moment);
    EXPECT_NO_THROW(check_append_writer(subject.data, subject.index));
    const ForeignLayer layer = read_append_pair(subject.data, subject.index);
    EXPECT_GT(layer.invalid_entries, 0U) << "the log holds no marker";
    EXPECT_SAME_BYTES(foreign_disk(layer, subject.data), subject.disk.bytes());
  };
  for (uint32_t session = 1; session <= 3; ++session) {
    auto image = open_writable(subject.config);
    work(*image, subject.disk, Mix::everything, session);
    judge("while open");
    must(image->flush());
    judge("after a flush");
    EXPECT_SAME_BYTES(read_disk(*image), subject.disk.bytes());
    if (session != 2) close_image(image);
    judge(session != 2 ? "closed" : "killed");
  }
}

// Every 4 KiB block that was overwritten again and again leaves dead records behind.
TEST(OurLayers, RewrittenLogObeysTheRules) {
  Subject subject(UpperKind::append);
  for (uint32_t session = 1; session <= 3; ++session) {
    auto image = open_writable(subject.config);
    for (uint32_t i = 0; i < 3000; ++i) {
      const Bytes data = random_bytes(session * 10000 + i, 4096);
      must(image->write(data, i % 16 * 8192));
      subject.disk.write(i % 16 * 8192, data);
    }
    close_image(image);
    EXPECT_NO_THROW(check_append_writer(subject.data, subject.index));
    const ForeignLayer layer = read_append_pair(subject.data, subject.index);
    EXPECT_LT(layer.entries.size(), 3000U) << "dead records were kept";
    EXPECT_SAME_BYTES(foreign_disk(layer, subject.data), subject.disk.bytes());
  }
}

TEST(OurLayers, SparseLayerIsFoundByItsHoles) {
  Subject subject(UpperKind::sparse);
  for (uint32_t session = 1; session <= 2; ++session) {
    auto image = open_writable(subject.config);
    work(*image, subject.disk, Mix::writes_only, session);
    EXPECT_SAME_BYTES(read_disk(*image), subject.disk.bytes());
    close_image(image);
    const ForeignLayer layer = read_sparse_layer(subject.data);
    EXPECT_EQ(layer.header_flags, 0x13U);
    EXPECT_EQ(layer.virtual_size, kDiskSize);
    EXPECT_EQ(std::filesystem::file_size(subject.data), 4096 + kDiskSize);
    EXPECT_SAME_BYTES(foreign_disk(layer, subject.data), subject.disk.bytes());
  }
}

class Sealed : public testing::TestWithParam<UpperKind> {};

TEST_P(Sealed, UpperObeysTheRules) {
  Subject subject(GetParam());
  auto image = open_writable(subject.config);
  const Uuid uuid = must(image->layers()).back().uuid;
  work(*image, subject.disk, Mix::everything, 5);
  close_image(image);
  EXPECT_TRUE(must(seal_image(posix_file_system(), subject.config)).empty());

  EXPECT_NO_THROW(check_sealed_writer(subject.data));
  const ForeignLayer layer = read_sealed_layer(subject.data);
  const uint32_t sparse_flag = GetParam() == UpperKind::sparse ? 0x10 : 0;
  EXPECT_EQ(layer.header_flags, 0x03U | sparse_flag);
  EXPECT_EQ(layer.trailer_flags, 0x06U | sparse_flag);
  EXPECT_EQ(layer.virtual_size, kDiskSize);
  EXPECT_EQ(layer.uuid, uuid.text());
  EXPECT_SAME_BYTES(foreign_disk(layer, subject.data), subject.disk.bytes());

  image = open_writable(subject.config);
  EXPECT_FALSE(image->writable());
  EXPECT_SAME_BYTES(read_disk(*image), subject.disk.bytes());
}

TEST_P(Sealed, UnusedUpperObeysTheRules) {
  const Subject subject(GetParam());
  must(seal_image(posix_file_system(), subject.config));
  EXPECT_NO_THROW(check_sealed_writer(subject.data));
  EXPECT_TRUE(read_sealed_layer(subject.data).entries.empty());
  EXPECT_SAME_BYTES(read_disk(*open_readable(subject.config)), base_content());
}

INSTANTIATE_TEST_SUITE_P(Kinds, Sealed, testing::Values(UpperKind::append, UpperKind::sparse),
                         [](const auto& kind) { return name_of(kind.param); });

TEST(OurLayers, WrittenLayerObeysTheRules) {
  const Workspace workspace;
  const std::string path = workspace / "layer.lsmt";
  LayerOptions options;
  options.virtual_size = 64 * kMiB;
  options.uuid = Uuid::random();
  options.parent_uuid = Uuid::random();
  options.user_tag = std::string(256, 'x');
  FlatDisk disk(64 * kMiB);
  auto writer = must(LayerWriter::create(posix_file_system(), path, options));
  const auto append = [&](uint64_t offset, uint64_t length) {
    const Bytes data = random_bytes(offset + length, length);
    must(writer->append_data(Sectors::floor(offset), data));
    disk.write(offset, data);
  };
  append(0, 512);
  append(512, 4096);  // goes on where the last one ended
  must(writer->append_zero(Sectors(9), Sectors(7)));
  append(8192, 20 * kMiB);  // longer than an entry can be
  must(writer->append_zero(Sectors::floor(32 * kMiB), Sectors(2 * 16383 + 1)));
  append(64 * kMiB - 512, 512);
  must(writer->finish());

  EXPECT_NO_THROW(check_sealed_writer(path));
  const ForeignLayer layer = read_sealed_layer(path);
  EXPECT_EQ(layer.header_flags, 0x07U);
  EXPECT_EQ(layer.trailer_flags, 0x06U);
  EXPECT_EQ(layer.virtual_size, options.virtual_size);
  EXPECT_EQ(layer.uuid, options.uuid.text());
  EXPECT_EQ(layer.parent_uuid, options.parent_uuid.text());
  EXPECT_EQ(layer.user_tag, options.user_tag);
  Bytes foreign(disk.bytes().size());
  paint(layer, path, foreign);
  EXPECT_SAME_BYTES(foreign, disk.bytes());
  const auto image = open_readable(make_config(workspace.path(), {"layer.lsmt"}, std::nullopt));
  EXPECT_SAME_BYTES(read_disk(*image), disk.bytes());
}

// The same layer in every container: overlaybd's reader of LSMT sees the same bytes in each.
TEST(OurLayers, ContainersChangeNothingButHowALayerIsStored) {
  const Workspace workspace;
  const std::vector<std::pair<std::string, BlobOptions>> containers = {
      {"raw", {}},
      {"tar", {.tar = true}},
      {"zfile lz4 4K", {.compression = Compression::lz4}},
      {"zfile zstd 64K", {.compression = Compression::zstd, .block_size = 65536}},
      {"zfile lz4 4K in tar", {.compression = Compression::lz4, .tar = true}},
  };
  const Bytes data = disk_from_scripts(kMiB, {fixture_folder() / "bad" / "base.script"});
  for (const auto& [name, blob] : containers) {
    SCOPED_TRACE(name);
    const std::string path = workspace / "layer";
    LayerOptions options;
    options.virtual_size = kMiB;
    options.overwrite = true;
    options.blob = blob;
    auto writer = must(LayerWriter::create(posix_file_system(), path, options));
    must(writer->append_data(Sectors(), data));
    must(writer->finish());
    EXPECT_TRUE(writer->warnings().empty());

    const auto image = open_readable(make_config(workspace.path(), {"layer"}, std::nullopt));
    EXPECT_SAME_BYTES(read_disk(*image), data);
    EXPECT_EQ(to_text(must(image->layers()).front().container.value()), name);
    if (blob.tar) {
      EXPECT_EQ(run("tar --list --file " + path), "overlaybd.commit\n");
    }
  }
}

TEST(OurLayers, WrittenEmptyLayerObeysTheRules) {
  const Workspace workspace;
  const std::string path = workspace / "layer.lsmt";
  make_layer(path, Bytes(kMiB));
  EXPECT_NO_THROW(check_sealed_writer(path));
  EXPECT_TRUE(read_sealed_layer(path).entries.empty());
}

}  // namespace
}  // namespace obd::interop
