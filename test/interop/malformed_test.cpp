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

Refusal zfile_refusal(const char* name, std::vector<std::string> words, int code = EINVAL) {
  words.push_back(std::string(name) + ".zfile: zfile");
  return {.name = name, .code = code, .words = std::move(words)};
}

Refusal tar_refusal(const char* name, std::vector<std::string> words) {
  words.push_back(std::string(name) + ".tar: tar header");
  return {.name = name, .code = EINVAL, .words = std::move(words)};
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
      // The last block, which holds LSMT's trailer.
      zfile_refusal("zfile-crc-flip", {"block 10", "checksum", "0x64fdf829"}, EBADMSG),
      zfile_refusal("zfile-jumptable-trunc", {"header", "index_offset 23410", "23430"}),
      zfile_refusal("zfile-jumptable-flip", {"jump table", "index_crc 0xb8eb2142"}),
      zfile_refusal("zfile-header-digest", {"header", "digest 0x2a77cae7"}),
      zfile_refusal("zfile-bs-0", {"header", "block_size 0"}),
      zfile_refusal("zfile-bs-128k", {"header", "index_size 11", "131072"}),
      zfile_refusal("zfile-bs-3000", {"header", "block_size 3000"}),
      zfile_refusal("zfile-algo-7", {"header", "algorithm 7"}, ENOTSUP),
      zfile_refusal("zfile-algo-0", {"header", "algorithm 0"}, ENOTSUP),
      zfile_refusal("zfile-index-size-huge", {"header", "index_size 1000000000"}),
      zfile_refusal("zfile-index-size-over", {"header", "index_size 1000000001"}),
      zfile_refusal("zfile-index-offset-wild", {"header", "index_offset 4611686018427387904"}),
      zfile_refusal("zfile-orig-size-larger", {"header", "original_file_size 1099511627776"}),
      zfile_refusal("zfile-orig-size-slightly-larger", {"header", "original_file_size 76288"}),
      zfile_refusal("zfile-dict-size", {"header", "dict_size 4096"}, ENOTSUP),
      zfile_refusal("zfile-jt-zero-len", {"jump table", "entry 2", "length of 0"}),
      zfile_refusal("zfile-jt-huge-len", {"jump table", "entry 2", "length of 4294967280"}),
      // Without its magic number this is no container at all, but a damaged layer.
      {"zfile-bad-magic", EINVAL, {"zfile-bad-magic.zfile", "magic"}},
      tar_refusal("tar-trunc", {"size 23966", "23464", "cut off"}),
      tar_refusal("tar-bad-checksum", {"checksum", "5355"}),
      tar_refusal("tar-bad-version", {"version 'xx'"}),
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
      "lsmt-moffset-wrong-in-range",
      "lsmt-entry-past-vsize",
      "lsmt-vsize-zero",
      "rw-index-torn-record",
      "rw-index-zero-tail",
      "rw-data-lost-tail",
      "rw-data-torn-tail",
      "rw-vsize-mismatch",
      "zfile-block-flip",
      "zfile-short-block",
      "zfile-nodigest",
      "zfile-trailer-only-damage",
      "valid-4tib",
      "valid-incompressible-lz4-64k",
      "valid-incompressible-zstd-64k",
  };
  return names;
}

TEST(MalformedFixtures, EachIsInOneOfTheTables) {
  std::set<std::string> covered = tolerated();
  for (const Refusal& refusal : refusals()) EXPECT_TRUE(covered.insert(refusal.name).second);
  for (const std::string& name : malformed_names()) EXPECT_EQ(covered.erase(name), 1U) << name;
  EXPECT_TRUE(covered.empty());
}

TEST(MalformedFixtures, TheWellFormedOnesReadAsTheirChecksumSays) {
  for (const std::string name : {"good.lsmt", "good.zfile", "good.tar"}) {
    SCOPED_TRACE(name);
    const Workspace workspace;
    copy_files(workspace, {"bad/" + name});
    const auto image = open_readable(make_config(workspace.path(), {name}, std::nullopt));
    EXPECT_SAME_BYTES(read_disk(*image), base_disk());
    EXPECT_EQ(sha256_of(read_disk(*image)), malformed_base().sha256_of_disk);
    const std::string layer = workspace / name;
    EXPECT_TRUE(must(check_image_or_layer(posix_file_system(), layer, false)).findings.empty());
  }
}

// Nothing that is needed is damaged: a final header makes its trailer superfluous, and without the
// digest flag there is nothing to hold the digest against.
TEST(MalformedFixtures, ZfilesThatAreWholeWhereItMattersAreServed) {
  for (const char* name : {"zfile-trailer-only-damage", "zfile-nodigest"}) {
    SCOPED_TRACE(name);
    const Malformed fixture(name);
    EXPECT_SAME_BYTES(read_disk(*open_readable(fixture.config())), base_disk());
    EXPECT_TRUE(fixture.unchanged());
  }
}

// One block is damaged: reads that touch it fail, and every other byte is served.
TEST(MalformedFixtures, DamagedBlockFailsItsReadsAndNoOthers) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"zfile-block-flip", "checksum"}, {"zfile-short-block", "10 bytes instead of 4096"}};
  for (const auto& [name, reason] : cases) {
    SCOPED_TRACE(name);
    const Malformed fixture(name);
    const Bytes expected = base_disk();
    const auto image = open_readable(fixture.config());
    size_t failed = 0;
    for (uint64_t offset = 0; offset < expected.size(); offset += kSectorSize) {
      Bytes sector(kSectorSize);
      const auto read = image->read(sector, offset);
      if (read) {
        EXPECT_TRUE(std::equal(sector.begin(), sector.end(),
                               expected.begin() + static_cast<ptrdiff_t>(offset)))
            << offset;
        continue;
      }
      ++failed;
      EXPECT_EQ(read.error().code, EIO);
      EXPECT_TRUE(
          mentions(read.error().message, {std::string(name) + ".zfile", "block 1 ", reason}))
          << read.error().message;
    }
    EXPECT_EQ(failed, 8U);
    EXPECT_TRUE(fixture.unchanged());
  }
}

// Overlaybd cannot read back what its own writer made of data that does not compress.
TEST(MalformedFixtures, BlocksThatGrewWhenCompressedAreServed) {
  for (const char* name : {"valid-incompressible-lz4-64k", "valid-incompressible-zstd-64k"}) {
    SCOPED_TRACE(name);
    const Malformed fixture(name);
    const auto image = open_readable(fixture.config());
    const Bytes disk = read_disk(*image);
    EXPECT_SAME_BYTES(disk,
                      disk_from_scripts(kMiB, {fixture_folder() / "bad/incompressible64k.script"}));
    EXPECT_EQ(sha256_of(disk), "cdbc6d222a2bf7168293cb3e3a503148a1baee6191da0109f31ad88e87337588");
  }
}

// Overlaybd cuts offsets in a stack's index to 32 bits of sectors.
TEST(MalformedFixtures, DiskOfFourTebibytesIsServedAtBothEnds) {
  const Malformed fixture("valid-4tib");
  const auto image = open_readable(fixture.config());
  ASSERT_EQ(image->size(), 4 * kTiB);
  const auto writes = read_script(fixture_folder() / "bad/big4t.script");
  ASSERT_EQ(writes.size(), 7U);
  for (const ScriptWrite& write : writes) {
    EXPECT_SAME_BYTES(read_range(*image, write.offset, write.data.size()), write.data);
  }
  EXPECT_SAME_BYTES(read_range(*image, 2 * kTiB + 4096, 4096), Bytes(4096));
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
