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

struct SealedSet {
  const char* set;
  const char* config;
  std::vector<const char*> scripts;  // relative to test/fixtures, bottom first
  const char* container;             // of the topmost layer
};
void PrintTo(const SealedSet& set, std::ostream* out) { *out << set.set << ' ' << set.config; }

const std::vector<const char*> kStackScripts = {"06-stack/L0.script", "06-stack/L1.script",
                                                "06-stack/L2.script", "06-stack/L3.script"};

std::vector<const char*> stack_under(const char* script) {
  std::vector<const char*> scripts = kStackScripts;
  scripts.push_back(script);
  return scripts;
}

Bytes expected_disk(const std::vector<const char*>& scripts) {
  std::vector<fs::path> paths;
  for (const char* script : scripts) paths.push_back(fixture_folder() / script);
  return disk_from_scripts(kSetSize, paths);
}

class SealedSets : public testing::TestWithParam<SealedSet> {};

TEST_P(SealedSets, ReadsAsItsScriptsAndChecksumSay) {
  const Workspace workspace;
  const fs::path folder = copy_set(workspace, GetParam().set);
  const auto before = folder_state(folder);

  const auto image = open_writable(folder / GetParam().config);
  EXPECT_FALSE(image->writable());
  const Bytes disk = read_disk(*image);
  EXPECT_SAME_BYTES(disk, expected_disk(GetParam().scripts));
  EXPECT_EQ(sha256_of(disk), fixture_set(GetParam().set).sha256_of_disk);
  EXPECT_EQ(warnings_of(*image), "");

  const LayerInfo top = must(image->layers()).back();
  EXPECT_EQ(top.kind, "sealed");
  EXPECT_EQ(to_text(top.container.value()), GetParam().container);
  EXPECT_TRUE(before == folder_state(folder)) << "opening or reading changed a file";
}

const std::vector<SealedSet>& sealed_sets() {
  static const std::vector<SealedSet> sets = {
      {"01-sealed-raw", "config.json", {"01-sealed-raw/layer.script"}, "raw"},
      {"02-committed-raw", "config.json", {"02-committed-raw/layer.script"}, "raw"},
      {"03-zfile-lz4-4k", "config.json", {"03-zfile-lz4-4k/layer.script"}, "zfile lz4 4K"},
      {"04-zfile-zstd-64k", "config.json", {"04-zfile-zstd-64k/layer.script"}, "zfile zstd 64K"},
      {"05-zfile-tar", "config.json", {"05-zfile-tar/layer.script"}, "zfile lz4 4K in tar"},
      {"06-stack", "config.json", kStackScripts, "zfile zstd 16K"},
      {"10-sealed-sparse", "config.json", {"10-sealed-sparse/layer.script"}, "raw"},
      {"11-merged", "config.json", kStackScripts, "zfile lz4 4K"},
      {"11-merged", "config-raw.json", kStackScripts, "raw"},
      {"12-merged-upper", "config.json", stack_under("07-append-upper/upper.script"),
       "zfile lz4 4K"},
      {"14-zfile-noverify", "config.json", {"14-zfile-noverify/layer.script"}, "zfile lz4 16K"},
  };
  return sets;
}

INSTANTIATE_TEST_SUITE_P(Fixtures, SealedSets, testing::ValuesIn(sealed_sets()),
                         [](const auto& set) {
                           const bool raw = std::string_view(set.param.config) != "config.json";
                           return identifier(set.param.set) + (raw ? "Raw" : "");
                         });

TEST(FixtureSets, CommitMessageIsRead) {
  const Workspace workspace;
  const auto image = open_readable(copy_set(workspace, "02-committed-raw") / "config.json");
  EXPECT_EQ(must(image->layers()).front().user_tag, "fixture tag 1001");
}

// Damage would have to be noticed by decompressing: this file was written without checksums.
TEST(FixtureSets, FileWithoutChecksumsSaysSo) {
  const Workspace workspace;
  const auto image = open_readable(copy_set(workspace, "14-zfile-noverify") / "config.json");
  EXPECT_FALSE(must(image->layers()).front().container.value().checksums);
}

// The two plain layers of the stack, without those between them.
TEST(FixtureSets, PlainLayersOfTheStackOverlayEachOther) {
  const Workspace workspace;
  const fs::path folder = copy_set(workspace, "06-stack");
  const auto image = open_readable(make_config(folder, {"L0.lsmt", "L2.lsmt"}, std::nullopt));
  EXPECT_SAME_BYTES(read_disk(*image), expected_disk({"06-stack/L0.script", "06-stack/L2.script"}));
}

// A file system that a kernel wrote: two layers, the lower one a ZFile.
TEST(FixtureSets, FileSystemReadsAsItsChecksumSays) {
  const Workspace workspace;
  const fs::path folder = copy_set(workspace, "13-ext4");
  const auto image = open_readable(folder / "config.json");
  EXPECT_EQ(sha256_of(read_disk(*image)), fixture_set("13-ext4").sha256_of_disk);
}

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

// The writable layers of the fixtures, over their four lowers in three kinds of blobs.
class UpperSets : public testing::TestWithParam<UpperSet> {
 protected:
  UpperSets() : folder_(copy_set(workspace_, GetParam().set)) {
    copy_set(workspace_, "06-stack");
    config_ = folder_ / "config.json";
    disk_ = expected_disk(stack_under(GetParam().script));
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

}  // namespace
}  // namespace obd::interop
