#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/io/file.h"
#include "test/unit/scratch_folder.h"

namespace obd {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// The host's file system, with a list of what was done to names and a step that fails on demand.
class WatchedFileSystem final : public FileSystem {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, Access access) override {
    return host_.open(path, access);
  }
  Result<std::unique_ptr<File>> create(const std::string& path, mode_t mode) override {
    OBD_TRY(note("create", path));
    return host_.create(path, mode);
  }
  Result<void> rename(const std::string& from, const std::string& to) override {
    OBD_TRY(note("rename", to));
    return host_.rename(from, to);
  }
  Result<void> rename_new(const std::string& from, const std::string& to) override {
    return host_.rename_new(from, to);
  }
  Result<void> remove(const std::string& path) override { return host_.remove(path); }
  Result<void> sync_directory(const std::string& path) override {
    OBD_TRY(note("sync_directory", path));
    return host_.sync_directory(path);
  }
  Result<bool> exists(const std::string& path) override { return host_.exists(path); }
  Result<std::string> canonical(const std::string& path) override { return host_.canonical(path); }
  Result<std::string> boot_id() override { return host_.boot_id(); }

  std::string failing_step;
  std::vector<std::string> steps;

 private:
  Result<void> note(const std::string& step, const std::string& path) {
    steps.push_back(step + " " + path);
    if (step == failing_step) return fail(EIO, "{}: {} fails", path, step);
    return {};
  }

  FileSystem& host_ = posix_file_system();
};

class FileUtilTest : public ::testing::Test {
 protected:
  static void put(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
  std::string get(const std::string& name) {
    return read_whole(posix_file_system(), folder_ / name, 1 << 20).value();
  }
  size_t names_in_folder() {
    size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      ++count;
    }
    return count;
  }

  FileSystem& fs_ = posix_file_system();
  test::ScratchFolder folder_;
};

TEST(DirectoryOf, GivesTheFolder) {
  EXPECT_EQ(directory_of("a"), ".");
  EXPECT_EQ(directory_of("a/b"), "a");
  EXPECT_EQ(directory_of("/a"), "/");
  EXPECT_EQ(directory_of("/a/b/c"), "/a/b");
  EXPECT_EQ(directory_of("./c"), ".");
}

TEST_F(FileUtilTest, ReadExactlyWantsEveryByte) {
  put(folder_ / "f", "0123456789");
  const auto file = fs_.open(folder_ / "f", Access::read_only).value();
  std::array<std::byte, 4> out{};
  ASSERT_TRUE(read_exactly(*file, out, 6));
  EXPECT_EQ(out[3], std::byte{'9'});
  const auto cut = read_exactly(*file, out, 7);
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, EIO);
  EXPECT_EQ(cut.error().message,
            (folder_ / "f") + ": ends early: 4 bytes at offset 7 are needed, but only 3 are there");
  EXPECT_TRUE(read_exactly(*file, {}, 1000));
}

TEST_F(FileUtilTest, ReadWholeIsBounded) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{65535}, size_t{65536}, size_t{65537},
                            size_t{131072}, size_t{200000}}) {
    const std::string text(size, 'x');
    put(folder_ / "f", text);
    EXPECT_EQ(read_whole(fs_, folder_ / "f", size).value(), text);
    EXPECT_EQ(read_whole(fs_, folder_ / "f", UINT64_MAX).value(), text);
    if (size > 0) {
      const auto refused = read_whole(fs_, folder_ / "f", size - 1);
      ASSERT_FALSE(refused) << size;
      EXPECT_EQ(refused.error().code, EFBIG);
      EXPECT_THAT(refused.error().message, HasSubstr(fmt::format("{} bytes", size - 1)));
    }
  }
  EXPECT_EQ(read_whole(fs_, folder_ / "no", 10).error().code, ENOENT);
}

// Such files say that their size is 0.
TEST_F(FileUtilTest, ReadWholeReadsProc) {
  EXPECT_FALSE(read_whole(fs_, "/proc/self/status", 1 << 20).value().empty());
}

// A file with a terabyte of hole must be refused without memory for it.
TEST_F(FileUtilTest, ReadWholeDoesNotTrustTheSize) {
  ASSERT_TRUE(fs_.create(folder_ / "f", 0600).value()->truncate(uint64_t{1} << 40));
  EXPECT_EQ(read_whole(fs_, folder_ / "f", 1000).error().code, EFBIG);
}

TEST_F(FileUtilTest, ReplaceFileMakesANewOne) {
  ASSERT_TRUE(replace_file(fs_, folder_ / "f", "content"));
  EXPECT_EQ(get("f"), "content");
  EXPECT_EQ(names_in_folder(), 1u);
}

TEST_F(FileUtilTest, ReplaceFileKeepsModeAndOwner) {
  put(folder_ / "f", "a long old content");
  ASSERT_EQ(chmod((folder_ / "f").c_str(), 0640), 0);
  const bool root = geteuid() == 0;
  if (root) {
    ASSERT_EQ(chown((folder_ / "f").c_str(), 12345, 23456), 0);
  }
  ASSERT_TRUE(replace_file(fs_, folder_ / "f", "new"));
  EXPECT_EQ(get("f"), "new");
  struct stat status{};
  ASSERT_EQ(stat((folder_ / "f").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0640u);
  if (root) {
    EXPECT_EQ(status.st_uid, 12345u);
    EXPECT_EQ(status.st_gid, 23456u);
  }
}

TEST_F(FileUtilTest, ReplaceFileLeavesItsNeighboursAlone) {
  put(folder_ / "f", "old");
  put(folder_ / "f.tmp", "somebody's");
  ASSERT_TRUE(replace_file(fs_, folder_ / "f", "new"));
  EXPECT_EQ(get("f"), "new");
  EXPECT_EQ(get("f.tmp"), "somebody's");
  EXPECT_EQ(names_in_folder(), 2u);
}

TEST_F(FileUtilTest, ReplaceFileGoesThroughLinks) {
  std::filesystem::create_directory(folder_ / "elsewhere");
  put(folder_ / "elsewhere/f", "old");
  std::filesystem::create_symlink("elsewhere/f", folder_ / "link");
  ASSERT_TRUE(replace_file(fs_, folder_ / "link", "new"));
  EXPECT_TRUE(std::filesystem::is_symlink(folder_ / "link"));
  EXPECT_EQ(get("elsewhere/f"), "new");
}

TEST_F(FileUtilTest, ReplaceFileSyncsTheFolderLast) {
  WatchedFileSystem watched;
  ASSERT_TRUE(replace_file(watched, folder_ / "f", "new"));
  EXPECT_THAT(watched.steps,
              ElementsAre(StartsWith("create " + (folder_ / "f.tmp-")), "rename " + (folder_ / "f"),
                          "sync_directory " + folder_.path()));
}

// Somebody who has the old file open goes on reading the old content: it was not written over.
TEST_F(FileUtilTest, ReplaceFileLeavesTheOldOneAlone) {
  put(folder_ / "f", "old");
  const auto old = fs_.open(folder_ / "f", Access::read_only).value();
  ASSERT_TRUE(replace_file(fs_, folder_ / "f", "new"));
  std::array<std::byte, 3> out{};
  ASSERT_TRUE(read_exactly(*old, out, 0));
  EXPECT_EQ(out[0], std::byte{'o'});
}

TEST_F(FileUtilTest, AFailedReplaceFileLeavesTheOldContentAndNothingElse) {
  put(folder_ / "f", "old");
  for (const std::string step : {"create", "rename"}) {
    WatchedFileSystem watched;
    watched.failing_step = step;
    const auto replaced = replace_file(watched, folder_ / "f", "new");
    ASSERT_FALSE(replaced) << step;
    EXPECT_EQ(replaced.error().code, EIO);
    EXPECT_EQ(get("f"), "old");
    EXPECT_EQ(names_in_folder(), 1u);
  }
  WatchedFileSystem watched;
  watched.failing_step = "sync_directory";
  EXPECT_EQ(replace_file(watched, folder_ / "f", "new").error().code, EIO);
}

}  // namespace
}  // namespace obd
