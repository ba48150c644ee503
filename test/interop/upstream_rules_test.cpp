// The judge of the other tests judged: on layers that overlaybd wrote, the second reader accepts
// and refuses what overlaybd did, and reads what overlaybd read.

#include "test/interop/upstream_rules.h"

#include <gtest/gtest.h>

#include "test/interop/fixture_set.h"
#include "test/interop/script_model.h"
#include "test/interop/workspace.h"

namespace obd::interop {
namespace {

namespace fs = std::filesystem;

TEST(UpstreamRules, SealedFixturesReadAsTheirChecksumsSay) {
  const Workspace workspace;
  const std::vector<std::pair<const char*, const char*>> layers = {
      {"01-sealed-raw", "layer.lsmt"},
      {"02-committed-raw", "layer.lsmt"},
      {"10-sealed-sparse", "layer.lsmt"},
      {"11-merged", "merged.lsmt"}};
  for (const auto& [set, file] : layers) {
    SCOPED_TRACE(set);
    const fs::path path = copy_set(workspace, set) / file;
    Bytes disk(fixture_set(set).virtual_size);
    paint(read_sealed_layer(path), path, disk);
    EXPECT_EQ(sha256_of(disk), fixture_set(set).sha256_of_disk);
  }
}

TEST(UpstreamRules, WritableFixturesReadAsTheirChecksumsSay) {
  const Workspace workspace;
  const fs::path stack = fixture_folder() / "06-stack";
  const Bytes below = disk_from_scripts(16 * kMiB, {stack / "L0.script", stack / "L1.script",
                                                    stack / "L2.script", stack / "L3.script"});
  EXPECT_EQ(sha256_of(below), fixture_set("06-stack").sha256_of_disk);
  for (const char* set : {"07-append-upper", "08-append-upper-group", "09-sparse-upper"}) {
    SCOPED_TRACE(set);
    const fs::path folder = copy_set(workspace, set);
    const fs::path data = folder / "upper.data";
    const bool sparse = fs::file_size(folder / "upper.index") == 0;
    Bytes disk = below;
    paint(sparse ? read_sparse_layer(data) : read_append_pair(data, folder / "upper.index"), data,
          disk);
    EXPECT_EQ(sha256_of(disk), fixture_set(set).sha256_of_disk);
  }
}

TEST(UpstreamRules, MalformedFixturesAreRefusedWhereOverlaybdRefused) {
  const Workspace workspace;
  for (const std::string& name : malformed_names()) {
    const bool pair = name.starts_with("rw-");
    if (!pair && !name.starts_with("lsmt-")) continue;
    SCOPED_TRACE(name);
    copy_files(workspace, malformed_files(name));
    const fs::path file = workspace.path() / fs::path(malformed_files(name).front()).filename();
    const auto read = [&] {
      return pair ? read_append_pair(fs::path(file).replace_extension(".data"),
                                     fs::path(file).replace_extension(".index"))
                  : read_sealed_layer(file);
    };
    if (upstream_refused(name)) {
      EXPECT_THROW(read(), RuleBroken);
    } else {
      EXPECT_NO_THROW(read());
    }
  }
}

}  // namespace
}  // namespace obd::interop
