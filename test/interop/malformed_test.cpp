// Every malformed fixture: either refused with a sentence that names the file and the field, or
// opened with the content that the tables below say. Nothing is modified by opening.

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <ostream>
#include <set>

#include "core/image/check.h"
#include "test/interop/fixture_set.h"
#include "test/interop/script_model.h"
#include "test/interop/upstream_rules.h"
#include "test/interop/workspace.h"

namespace obd::interop {
namespace {

namespace fs = std::filesystem;

Bytes base_disk() {
  return disk_from_scripts(malformed_base().virtual_size,
                           {fixture_folder() / "bad" / "base.script"});
}

std::string file_name(const std::string& path) { return fs::path(path).filename().string(); }

// A workspace that holds one fixture from bad/ and a config for it.
class Malformed {
 public:
  explicit Malformed(const std::string& name) : files_(malformed_files(name)) {
    copy_files(workspace_, files_);
    config_ = workspace_ / file_name(files_.front());
    if (!config_.ends_with(".json")) {
      config_ = make_config(workspace_.path(), {file_name(files_.front())}, std::nullopt);
    }
    before_ = folder_state(workspace_.path());
  }

  [[nodiscard]] const std::string& config() const { return config_; }
  [[nodiscard]] fs::path file(const std::string& name) const { return workspace_ / name; }
  [[nodiscard]] bool unchanged() const { return before_ == folder_state(workspace_.path()); }

 private:
  Workspace workspace_;
  std::vector<std::string> files_;
  std::string config_;
  std::map<std::string, std::string> before_;
};

struct Refusal {
  const char* name;
  int code;
  std::vector<std::string> words;  // of the sentence: the file, the part, the field
};
void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.name; }

// The file, for a fixture that is a single layer.
Refusal layer_refusal(const char* name, std::vector<std::string> words) {
  words.push_back(std::string(name) + ".lsmt");
  return {.name = name, .code = EINVAL, .words = std::move(words)};
}

Refusal zfile_refusal(const char* name) {
  return {.name = name, .code = ENOTSUP, .words = {std::string(name) + ".zfile", "ZFile"}};
}

const std::vector<Refusal>& refusals() {
  static const std::vector<Refusal> table = {
      layer_refusal("lsmt-trunc-trailer", {"trailer", "magic"}),
      layer_refusal("lsmt-trunc-half", {"trailer", "magic"}),
      layer_refusal("lsmt-empty", {"0 bytes"}),
      layer_refusal("lsmt-tiny", {"100 bytes"}),
      layer_refusal("lsmt-header-only", {"4096 bytes"}),
      layer_refusal("lsmt-bad-magic-header", {"magic"}),
      layer_refusal("lsmt-bad-magic-trailer", {"trailer", "magic"}),
      layer_refusal("lsmt-header-is-index", {"header", "flags", "0x1"}),
      layer_refusal("lsmt-trailer-unsealed", {"trailer", "flags", "0x2"}),
      layer_refusal("lsmt-index-out-of-order", {"entry"}),
      layer_refusal("lsmt-index-overlap", {"entry 4"}),
      layer_refusal("lsmt-moffset-past-eof", {"entry 4"}),
      layer_refusal("lsmt-moffset-in-header", {"entry 4"}),
      layer_refusal("lsmt-moffset-straddles-index", {"entry 4"}),
      layer_refusal("lsmt-zero-length-entry", {"entry 6", "length"}),
      layer_refusal("lsmt-index-size-huge", {"index_size", "140737488355328"}),
      layer_refusal("lsmt-index-size-max-plus1", {"index_size", "1000001"}),
      layer_refusal("lsmt-index-size-overflow", {"index_size", "1152921504606846976"}),
      layer_refusal("lsmt-index-offset-wild", {"index_offset"}),
      layer_refusal("lsmt-index-offset-unaligned", {"index_offset", "35336"}),
      layer_refusal("lsmt-vsize-odd", {"virtual_size", "1000001"}),
      zfile_refusal("zfile-crc-flip"),
      zfile_refusal("zfile-block-flip"),
      zfile_refusal("zfile-jumptable-trunc"),
      zfile_refusal("zfile-jumptable-flip"),
      zfile_refusal("zfile-header-digest"),
      zfile_refusal("zfile-trailer-only-damage"),
      zfile_refusal("zfile-bs-0"),
      zfile_refusal("zfile-bs-128k"),
      zfile_refusal("zfile-bs-3000"),
      zfile_refusal("zfile-algo-7"),
      zfile_refusal("zfile-algo-0"),
      zfile_refusal("zfile-index-size-huge"),
      zfile_refusal("zfile-index-size-over"),
      zfile_refusal("zfile-index-offset-wild"),
      zfile_refusal("zfile-orig-size-larger"),
      zfile_refusal("zfile-orig-size-slightly-larger"),
      zfile_refusal("zfile-dict-size"),
      zfile_refusal("zfile-nodigest"),
      zfile_refusal("zfile-jt-zero-len"),
      zfile_refusal("zfile-jt-huge-len"),
      zfile_refusal("zfile-short-block"),
      zfile_refusal("valid-incompressible-lz4-64k"),
      zfile_refusal("valid-incompressible-zstd-64k"),
      {"valid-4tib", ENOTSUP, {"valid-4tib.lsmt", "ZFile"}},
      // Without its magic number this is no container at all, but a damaged layer.
      {"zfile-bad-magic", EINVAL, {"zfile-bad-magic.zfile", "magic"}},
      {"tar-trunc", ENOTSUP, {"tar-trunc.tar", "is a tar file"}},
      {"tar-bad-checksum", ENOTSUP, {"tar-bad-checksum.tar", "is a tar file"}},
      {"tar-bad-version", ENOTSUP, {"tar-bad-version.tar", "is a tar file"}},
      {"rw-index-bad-magic", EINVAL, {"rw-index-bad-magic.index", "magic"}},
      {"rw-index-sealed-flag", EINVAL, {"rw-index-sealed-flag.index", "flags", "0x5"}},
      {"rw-index-wrong-uuid",
       EINVAL,
       {"rw-index-wrong-uuid.index", "uuid", "00000000-1111-4222-A333-444444444444"}},
  };
  return table;
}

class Refused : public testing::TestWithParam<Refusal> {};

TEST_P(Refused, WithASentenceThatNamesFileAndField) {
  const Malformed fixture(GetParam().name);
  for (const Access access : {Access::read_only, Access::read_write}) {
    const Error error = open_error(fixture.config(), access);
    EXPECT_EQ(error.code, GetParam().code) << error.message;
    EXPECT_TRUE(mentions(error.message, GetParam().words)) << error.message;
    EXPECT_EQ(error.message.find('\n'), std::string::npos) << error.message;
  }
  EXPECT_TRUE(fixture.unchanged());
}

TEST_P(Refused, AndCheckingSaysTheSame) {
  const Malformed fixture(GetParam().name);
  const CheckReport report =
      must(check_image_or_layer(posix_file_system(), fixture.config(), false));
  const bool unread = GetParam().code == ENOTSUP;
  EXPECT_EQ(report.complete, !unread);
  const bool found = std::ranges::any_of(report.findings, [&](const Finding& finding) {
    return finding.wrong == !unread && mentions(finding.text, GetParam().words);
  });
  EXPECT_TRUE(found);
  for (const Finding& finding : report.findings) {
    if (!found) ADD_FAILURE() << finding.text;
  }
  EXPECT_TRUE(fixture.unchanged());
}

INSTANTIATE_TEST_SUITE_P(Fixtures, Refused, testing::ValuesIn(refusals()),
                         [](const auto& refusal) { return identifier(refusal.param.name); });

// What opens although something is wrong with it.
const std::set<std::string>& tolerated() {
  static const std::set<std::string> names = {
      "lsmt-moffset-wrong-in-range", "lsmt-entry-past-vsize", "lsmt-vsize-zero",
      "rw-index-torn-record",        "rw-index-zero-tail",    "rw-data-lost-tail",
      "rw-data-torn-tail",           "rw-vsize-mismatch",
  };
  return names;
}

TEST(MalformedFixtures, EachIsInOneOfTheTables) {
  std::set<std::string> covered = tolerated();
  for (const Refusal& refusal : refusals()) EXPECT_TRUE(covered.insert(refusal.name).second);
  for (const std::string& name : malformed_names()) EXPECT_EQ(covered.erase(name), 1U) << name;
  EXPECT_TRUE(covered.empty());
}

TEST(MalformedFixtures, TheWellFormedOneReadsAsItsChecksumSays) {
  const Workspace workspace;
  copy_files(workspace, {"bad/good.lsmt"});
  const auto image = open_readable(make_config(workspace.path(), {"good.lsmt"}, std::nullopt));
  EXPECT_SAME_BYTES(read_disk(*image), base_disk());
  EXPECT_EQ(sha256_of(read_disk(*image)), malformed_base().sha256_of_disk);
  const std::string layer = workspace / "good.lsmt";
  EXPECT_TRUE(must(check_image_or_layer(posix_file_system(), layer, false)).findings.empty());
}

// LSMT has no checksums: a wrong place within the data cannot be told from a right one.
TEST(MalformedFixtures, WrongButPossiblePlaceIsServedWithoutHarm) {
  const Malformed fixture("lsmt-moffset-wrong-in-range");
  const auto image = open_readable(fixture.config());
  EXPECT_EQ(sha256_of(read_disk(*image)).substr(0, 16), "dbf6374284df0036");
  EXPECT_TRUE(fixture.unchanged());
}

TEST(MalformedFixtures, EntryPastTheEndIsClippedWithAWarning) {
  const Malformed fixture("lsmt-entry-past-vsize");
  const auto image = open_readable(fixture.config());
  EXPECT_SAME_BYTES(read_disk(*image), base_disk());
  EXPECT_TRUE(mentions(warnings_of(*image), {"lsmt-entry-past-vsize.lsmt", "virtual_size"}))
      << warnings_of(*image);
  EXPECT_TRUE(fixture.unchanged());
}

TEST(MalformedFixtures, VirtualSizeZeroIsAnEmptyDisk) {
  const Malformed fixture("lsmt-vsize-zero");
  const auto image = open_readable(fixture.config());
  EXPECT_EQ(image->size(), 0U);
  EXPECT_TRUE(fixture.unchanged());
}

TEST(MalformedFixtures, TheIndexHeaderDecidesTheSizeOfAWritableLayer) {
  const Malformed fixture("rw-vsize-mismatch");
  const auto image = open_writable(fixture.config());
  Bytes disk = base_disk();
  disk.resize(2 * kMiB);
  EXPECT_SAME_BYTES(read_disk(*image), disk);
  EXPECT_EQ(sha256_of(read_disk(*image)).substr(0, 16), "3257c294fa97adc4");
  EXPECT_TRUE(mentions(warnings_of(*image), {"virtual_size", "1048576", "2097152"}))
      << warnings_of(*image);
  EXPECT_TRUE(fixture.unchanged());
}

// The tail of a writable layer after a crash. Opening heals nothing on disk; the first write does.
struct Tail {
  const char* name;
  std::vector<std::string> warning;  // words; empty: nothing was lost, so nothing needs saying
  uint64_t lost_from = 0;            // first byte of the disk whose data is gone; 0: none
};
void PrintTo(const Tail& tail, std::ostream* out) { *out << tail.name; }

class BrokenTails : public testing::TestWithParam<Tail> {};

TEST_P(BrokenTails, OpenThenGoOnAsIfNothingHadHappened) {
  const std::string name = GetParam().name;
  const Malformed fixture(name);
  FlatDisk disk(base_disk());
  if (GetParam().lost_from != 0) {
    disk.zero(GetParam().lost_from, disk.bytes().size() - GetParam().lost_from);
  }
  for (const Access access : {Access::read_only, Access::read_write}) {
    const auto image = must(Image::open(posix_file_system(), fixture.config(), {.access = access}));
    EXPECT_EQ(image->writable(), access == Access::read_write);
    EXPECT_SAME_BYTES(read_disk(*image), disk.bytes());
    EXPECT_TRUE(mentions(warnings_of(*image), GetParam().warning)) << warnings_of(*image);
    must(image->close());
  }
  EXPECT_TRUE(fixture.unchanged()) << "a session without a write changed a file";

  auto image = open_writable(fixture.config());
  for (const uint64_t offset : {uint64_t{43520}, uint64_t{600000}, uint64_t{4096}}) {
    const Bytes data = random_bytes(offset, 1536);
    must(image->write(data, offset));
    disk.write(offset, data);
  }
  close_image(image);

  image = open_writable(fixture.config());
  EXPECT_SAME_BYTES(read_disk(*image), disk.bytes());
  EXPECT_EQ(warnings_of(*image), "");
  close_image(image);
  const fs::path data = fixture.file(name + ".data");
  const fs::path index = fixture.file(name + ".index");
  EXPECT_NO_THROW(check_append_writer(data, index));
  Bytes foreign(disk.bytes().size());
  ASSERT_NO_THROW(paint(read_append_pair(data, index), data, foreign));
  EXPECT_SAME_BYTES(foreign, disk.bytes());
}

INSTANTIATE_TEST_SUITE_P(Fixtures, BrokenTails,
                         testing::Values(Tail{.name = "rw-index-torn-record", .warning = {}},
                                         Tail{.name = "rw-index-zero-tail",
                                              .warning = {"rw-index-zero-tail.index"}},
                                         Tail{.name = "rw-data-lost-tail",
                                              .warning = {"rw-data-lost-tail"},
                                              .lost_from = 43520},
                                         Tail{.name = "rw-data-torn-tail", .warning = {}}),
                         [](const auto& tail) { return identifier(tail.param.name); });

}  // namespace
}  // namespace obd::interop
