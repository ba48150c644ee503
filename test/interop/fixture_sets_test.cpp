// Layers that overlaybd wrote read here, byte for byte, as they read there.
//
// What a set must read as is known twice over: from its scripts (script_model.h) and from the
// checksum in the manifest.

#include <gtest/gtest.h>

#include <cerrno>
#include <ostream>
#include <vector>

#include "test/interop/fixture_set.h"
#include "test/interop/script_model.h"
#include "test/interop/upstream_rules.h"
#include "test/interop/workspace.h"

namespace obd::interop {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kSetSize = 16 * kMiB;

struct RawSet {
  const char* set;
  const char* config;
  std::vector<const char*> scripts;  // relative to test/fixtures, bottom first
};
void PrintTo(const RawSet& set, std::ostream* out) { *out << set.set; }

const std::vector<const char*> kStackScripts = {"06-stack/L0.script", "06-stack/L1.script",
                                                "06-stack/L2.script", "06-stack/L3.script"};

Bytes expected_disk(const std::vector<const char*>& scripts) {
  std::vector<fs::path> paths;
  for (const char* script : scripts) paths.push_back(fixture_folder() / script);
  return disk_from_scripts(kSetSize, paths);
}

class RawSets : public testing::TestWithParam<RawSet> {};

TEST_P(RawSets, ReadsAsItsScriptsAndChecksumSay) {
  const Workspace workspace;
  const fs::path folder = copy_set(workspace, GetParam().set);
  const auto before = folder_state(folder);

  const auto image = open_writable(folder / GetParam().config);
  EXPECT_FALSE(image->writable());
  const Bytes disk = read_disk(*image);
  EXPECT_SAME_BYTES(disk, expected_disk(GetParam().scripts));
  EXPECT_EQ(sha256_of(disk), fixture_set(GetParam().set).sha256_of_disk);
  EXPECT_EQ(warnings_of(*image), "");

  EXPECT_EQ(must(image->layers()).front().kind, "sealed");
  EXPECT_TRUE(before == folder_state(folder)) << "opening or reading changed a file";
}

INSTANTIATE_TEST_SUITE_P(
    Fixtures, RawSets,
    testing::Values(RawSet{"01-sealed-raw", "config.json", {"01-sealed-raw/layer.script"}},
                    RawSet{"02-committed-raw", "config.json", {"02-committed-raw/layer.script"}},
                    RawSet{"10-sealed-sparse", "config.json", {"10-sealed-sparse/layer.script"}},
                    RawSet{"11-merged", "config-raw.json", kStackScripts}),
    [](const auto& set) { return identifier(set.param.set); });

TEST(FixtureSets, CommitMessageIsRead) {
  const Workspace workspace;
  const auto image = open_readable(copy_set(workspace, "02-committed-raw") / "config.json");
  EXPECT_EQ(must(image->layers()).front().user_tag, "fixture tag 1001");
}

// The two plain layers of the stack, without those between them.
TEST(FixtureSets, PlainLayersOfTheStackOverlayEachOther) {
  const Workspace workspace;
  const fs::path folder = copy_set(workspace, "06-stack");
  const auto image = open_readable(make_config(folder, {"L0.lsmt", "L2.lsmt"}, std::nullopt));
  EXPECT_SAME_BYTES(read_disk(*image), expected_disk({"06-stack/L0.script", "06-stack/L2.script"}));
}

// The upper layer of the file system image, whose lower layer is a ZFile.
TEST(FixtureSets, PlainLayerOfTheFileSystemReadsLikeTheSecondReader) {
  const Workspace workspace;
  const fs::path folder = copy_set(workspace, "13-ext4");
  const auto image = open_readable(make_config(folder, {"L1.lsmt"}, std::nullopt));
  ASSERT_EQ(image->size(), fixture_set("13-ext4").virtual_size);
  Bytes disk(image->size());
  paint(read_sealed_layer(folder / "L1.lsmt"), folder / "L1.lsmt", disk);
  EXPECT_SAME_BYTES(read_disk(*image), disk);
}

struct UpperSet {
  const char* set;
  const char* kind;
  const char* script;
};
void PrintTo(const UpperSet& set, std::ostream* out) { *out << set.set; }

// The writable layers of the fixtures, over one layer that reads like their four lowers.
class UpperSets : public testing::TestWithParam<UpperSet> {
 protected:
  UpperSets() : folder_(copy_set(workspace_, GetParam().set)) {
    make_layer(folder_ / "stack.lsmt", expected_disk(kStackScripts));
    config_ = make_config(folder_, {"stack.lsmt"},
                          UpperFiles{.data = "upper.data", .index = "upper.index"});
    std::vector<const char*> scripts = kStackScripts;
    scripts.push_back(GetParam().script);
    disk_ = expected_disk(scripts);
  }

  Workspace workspace_;
  fs::path folder_;
  std::string config_;
  Bytes disk_;
};

TEST_P(UpperSets, ReadsAsItsScriptsAndChecksumSay) {
  const auto before = folder_state(folder_);
  for (const Access access : {Access::read_only, Access::read_write}) {
    const auto image = must(Image::open(posix_file_system(), config_, {.access = access}));
    EXPECT_EQ(image->writable(), access == Access::read_write);
    const Bytes disk = read_disk(*image);
    EXPECT_SAME_BYTES(disk, disk_);
    EXPECT_EQ(sha256_of(disk), fixture_set(GetParam().set).sha256_of_disk);
    EXPECT_EQ(must(image->layers()).back().kind, GetParam().kind);
    must(image->close());
  }
  EXPECT_TRUE(before == folder_state(folder_)) << "a session without a write changed a file";
}

TEST_P(UpperSets, GoesOnWithWhatOverlaybdWrote) {
  FlatDisk disk(disk_);
  auto image = open_writable(config_);
  const std::vector<ScriptWrite> writes = {
      {.offset = 5173248, .data = random_bytes(1, 8192)},
      {.offset = 4096 * 700 + 1, .data = random_bytes(2, 999)},
      {.offset = 16 * kMiB - 512, .data = random_bytes(3, 512)}};
  for (const ScriptWrite& write : writes) {
    must(image->write(write.data, write.offset));
    disk.write(write.offset, write.data);
  }
  must(image->trim(81920, 65536));
  disk.zero(81920, 65536);
  EXPECT_SAME_BYTES(read_disk(*image), disk.bytes());

  image.reset();  // as if killed
  image = open_writable(config_);
  EXPECT_SAME_BYTES(read_disk(*image), disk.bytes());
  close_image(image);
  image = open_readable(config_);
  EXPECT_SAME_BYTES(read_disk(*image), disk.bytes());
}

TEST_P(UpperSets, SealsToTheSameDisk) {
  must(seal_image(posix_file_system(), config_));
  const auto image = open_writable(config_);
  EXPECT_FALSE(image->writable());
  EXPECT_EQ(sha256_of(read_disk(*image)), fixture_set(GetParam().set).sha256_of_disk);
  Bytes disk = expected_disk(kStackScripts);
  paint(read_sealed_layer(folder_ / "upper.data"), folder_ / "upper.data", disk);
  EXPECT_SAME_BYTES(disk, disk_);
}

INSTANTIATE_TEST_SUITE_P(
    Fixtures, UpperSets,
    testing::Values(UpperSet{"07-append-upper", "append", "07-append-upper/upper.script"},
                    UpperSet{"08-append-upper-group", "append",
                             "08-append-upper-group/upper.script"},
                    UpperSet{"09-sparse-upper", "sparse", "09-sparse-upper/upper.script"}),
    [](const auto& set) { return identifier(set.param.set); });

struct RefusedSet {
  const char* set;
  const char* config;
  const char* layer;      // the file that the sentence names
  const char* container;  // and what it is
};
void PrintTo(const RefusedSet& set, std::ostream* out) { *out << set.set; }

// Blobs in a container that is not read: an error that a person can act on, and no change.
class RefusedSets : public testing::TestWithParam<RefusedSet> {};

TEST_P(RefusedSets, NamesTheLayerAndTheReason) {
  const Workspace workspace;
  copy_set(workspace, "06-stack");
  const fs::path folder = copy_set(workspace, GetParam().set);
  const auto before = folder_state(workspace.path());
  const Error error = open_error(folder / GetParam().config, Access::read_write);
  EXPECT_EQ(error.code, ENOTSUP);
  EXPECT_NE(error.message.find(GetParam().layer), std::string::npos) << error.message;
  EXPECT_NE(error.message.find(GetParam().container), std::string::npos) << error.message;
  EXPECT_TRUE(before == folder_state(workspace.path())) << "a refused open changed a file";
}

INSTANTIATE_TEST_SUITE_P(
    Fixtures, RefusedSets,
    testing::Values(RefusedSet{"03-zfile-lz4-4k", "config.json", "layer.zfile", "ZFile"},
                    RefusedSet{"04-zfile-zstd-64k", "config.json", "layer.zfile", "ZFile"},
                    RefusedSet{"05-zfile-tar", "config.json", "layer.tar", "tar"},
                    RefusedSet{"06-stack", "config.json", "L1.tar", "tar"},
                    RefusedSet{"07-append-upper", "config.json", "L1.tar", "tar"},
                    RefusedSet{"08-append-upper-group", "config.json", "L1.tar", "tar"},
                    RefusedSet{"09-sparse-upper", "config.json", "L1.tar", "tar"},
                    RefusedSet{"11-merged", "config.json", "merged.zfile", "ZFile"},
                    RefusedSet{"12-merged-upper", "config.json", "merged.zfile", "ZFile"},
                    RefusedSet{"13-ext4", "config.json", "L0.zfile", "ZFile"},
                    RefusedSet{"14-zfile-noverify", "config.json", "layer.zfile", "ZFile"}),
    [](const auto& set) { return identifier(set.param.set); });

}  // namespace
}  // namespace obd::interop
