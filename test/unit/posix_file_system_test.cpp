#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/io/file.h"
#include "test/unit/scratch_folder.h"

namespace obd {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class PosixFileSystemTest : public ::testing::Test {
 protected:
  static void put(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
  static std::string get(const std::string& path) {
    return read_whole(posix_file_system(), path, 1 << 20).value();
  }

  FileSystem& fs_ = posix_file_system();
  test::ScratchFolder folder_;
};

TEST_F(PosixFileSystemTest, OpensOnlyRegularFiles) {
  const std::string fifo = folder_ / "fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  for (const std::string& path : {fifo, folder_.path(), std::string("/dev/null")}) {
    const auto file = fs_.open(path, Access::read_only);
    ASSERT_FALSE(file) << path;
    EXPECT_EQ(file.error().code, EINVAL);
    EXPECT_THAT(file.error().message, StartsWith(path + ": is not a regular file"));
  }
  EXPECT_EQ(fs_.open(fifo, Access::read_write).error().code, EINVAL);
}

TEST_F(PosixFileSystemTest, AMissingFileIsNamed) {
  const auto file = fs_.open(folder_ / "no", Access::read_only);
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code, ENOENT);
  EXPECT_EQ(file.error().message,
            (folder_ / "no") + ": cannot open for reading: No such file or directory");
}

TEST_F(PosixFileSystemTest, DescriptorsAreNotInherited) {
  put(folder_ / "f", "x");
  const int next = ::open("/dev/null", O_RDONLY | O_CLOEXEC);  // the next number to be given out
  ASSERT_GE(next, 0);
  close(next);
  const auto file = fs_.open(folder_ / "f", Access::read_only);
  ASSERT_TRUE(file);
  EXPECT_EQ(fcntl(next, F_GETFD), FD_CLOEXEC);
}

TEST_F(PosixFileSystemTest, CreateNeverTakesOverAName) {
  const auto file = fs_.create(folder_ / "f", 0600);
  ASSERT_TRUE(file);
  EXPECT_EQ((*file)->info()->mode, 0600u);
  EXPECT_EQ(fs_.create(folder_ / "f", 0600).error().code, EEXIST);
  std::filesystem::create_symlink("nowhere", folder_ / "link");
  EXPECT_EQ(fs_.create(folder_ / "link", 0600).error().code, EEXIST);
}

TEST_F(PosixFileSystemTest, RenameReplaces) {
  put(folder_ / "a", "new");
  put(folder_ / "b", "old");
  ASSERT_TRUE(fs_.rename(folder_ / "a", folder_ / "b"));
  EXPECT_EQ(get(folder_ / "b"), "new");
  EXPECT_FALSE(fs_.exists(folder_ / "a").value());
  EXPECT_EQ(fs_.rename(folder_ / "a", folder_ / "c").error().code, ENOENT);
}

TEST_F(PosixFileSystemTest, RenameNewDoesNot) {
  put(folder_ / "a", "new");
  put(folder_ / "b", "old");
  const auto renamed = fs_.rename_new(folder_ / "a", folder_ / "b");
  ASSERT_FALSE(renamed);
  EXPECT_EQ(renamed.error().code, EEXIST);
  EXPECT_THAT(renamed.error().message, HasSubstr(folder_ / "b"));
  EXPECT_EQ(get(folder_ / "a"), "new");
  EXPECT_EQ(get(folder_ / "b"), "old");
  ASSERT_TRUE(fs_.rename_new(folder_ / "a", folder_ / "c"));
  EXPECT_EQ(get(folder_ / "c"), "new");
  EXPECT_FALSE(fs_.exists(folder_ / "a").value());
}

TEST_F(PosixFileSystemTest, RemoveAndExists) {
  put(folder_ / "f", "x");
  EXPECT_TRUE(fs_.exists(folder_ / "f").value());
  EXPECT_TRUE(fs_.exists(folder_.path()).value());
  ASSERT_TRUE(fs_.remove(folder_ / "f"));
  EXPECT_FALSE(fs_.exists(folder_ / "f").value());
  EXPECT_EQ(fs_.remove(folder_ / "f").error().code, ENOENT);
  put(folder_ / "f", "x");
  EXPECT_FALSE(fs_.exists(folder_ / "f/g").value());  // a file is no folder
}

TEST_F(PosixFileSystemTest, SyncsFolders) {
  EXPECT_TRUE(fs_.sync_directory(folder_.path()));
  put(folder_ / "f", "x");
  EXPECT_EQ(fs_.sync_directory(folder_ / "f").error().code, ENOTDIR);
  EXPECT_EQ(fs_.sync_directory(folder_ / "no").error().code, ENOENT);
}

TEST_F(PosixFileSystemTest, CanonicalFollowsLinks) {
  put(folder_ / "f", "x");
  std::filesystem::create_symlink("f", folder_ / "link");
  const std::string real = std::filesystem::canonical(folder_ / "f");
  EXPECT_EQ(fs_.canonical(folder_ / "link").value(), real);
  EXPECT_EQ(fs_.canonical(folder_ / "./f").value(), real);
  EXPECT_EQ(fs_.canonical(folder_ / "no").error().code, ENOENT);
}

TEST_F(PosixFileSystemTest, BootIdIsStableAndTrimmed) {
  const auto id = fs_.boot_id();
  ASSERT_TRUE(id) << id.error().message;
  EXPECT_EQ(id->size(), 36u);
  EXPECT_EQ(id->find_first_not_of("0123456789abcdef-"), std::string::npos);
  EXPECT_EQ(fs_.boot_id().value(), *id);
}

}  // namespace
}  // namespace obd
