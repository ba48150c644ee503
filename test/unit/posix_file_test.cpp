#include "core/io/posix_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "test/unit/scratch_folder.h"

namespace obd {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMaxOffset = std::numeric_limits<int64_t>::max();

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

class PosixFileTest : public ::testing::Test {
 protected:
  std::unique_ptr<File> create(const std::string& name) {
    auto file = posix_file_system().create(folder_ / name, 0644);
    EXPECT_TRUE(file) << file.error().message;
    return std::move(*file);
  }

  std::unique_ptr<File> open(const std::string& name, Access access) {
    auto file = posix_file_system().open(folder_ / name, access);
    EXPECT_TRUE(file) << file.error().message;
    return std::move(*file);
  }

  static std::string read(const File& file, uint64_t offset, size_t length) {
    std::string text(length, '?');
    const auto count = file.read_at(std::as_writable_bytes(std::span(text)), offset);
    EXPECT_TRUE(count) << count.error().message;
    text.resize(count.value_or(0));
    return text;
  }

  test::ScratchFolder folder_;
};

TEST_F(PosixFileTest, WritesAndReadsAtOffsets) {
  const auto file = create("f");
  EXPECT_EQ(file->path(), folder_ / "f");
  ASSERT_TRUE(file->write_at(bytes_of("world"), 6));
  ASSERT_TRUE(file->write_at(bytes_of("hello "), 0));
  ASSERT_TRUE(file->write_at({}, 100));
  EXPECT_EQ(read(*file, 0, 11), "hello world");
  EXPECT_EQ(read(*file, 4, 3), "o w");
  EXPECT_EQ(file->info().value().size, 11u);
  EXPECT_TRUE(file->sync());
}

TEST_F(PosixFileTest, ReadsStopAtTheEnd) {
  const auto file = create("f");
  ASSERT_TRUE(file->write_at(bytes_of("abc"), 0));
  EXPECT_EQ(read(*file, 1, 100), "bc");
  EXPECT_EQ(read(*file, 3, 100), "");
  EXPECT_EQ(read(*file, 1'000'000, 100), "");
  EXPECT_EQ(read(*file, kMaxOffset, 100), "");
  EXPECT_EQ(read(*file, kMaxOffset - 1, 100), "");
}

TEST_F(PosixFileTest, OffsetsThatNoFileHasAreRefused) {
  const auto file = create("f");
  std::array<std::byte, 8> buffer{};
  for (const uint64_t offset : {kMaxOffset + 1, std::numeric_limits<uint64_t>::max()}) {
    EXPECT_EQ(file->read_at(buffer, offset).error().code, EINVAL);
    EXPECT_EQ(file->write_at(buffer, offset).error().code, EFBIG);
    EXPECT_EQ(file->truncate(offset).error().code, EFBIG);
    EXPECT_EQ(file->punch_hole({offset, 1}).error().code, EFBIG);
    EXPECT_EQ(file->punch_hole({1, offset}).error().code, EFBIG);
    EXPECT_EQ(file->next_data(offset).value(), std::nullopt);
    file->prefetch({offset, 8});
  }
  EXPECT_EQ(file->write_at(buffer, kMaxOffset - 7).error().code, EFBIG);
  EXPECT_EQ(file->info().value().size, 0u);
}

TEST_F(PosixFileTest, ErrorsNameThePathAndTheOffset) {
  create("f");
  const auto file = open("f", Access::read_only);
  const auto written = file->write_at(bytes_of("abc"), 4242);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, EBADF);
  EXPECT_THAT(written.error().message, HasSubstr((folder_ / "f") + ": cannot write"));
  EXPECT_THAT(written.error().message, HasSubstr("offset 4242"));
  EXPECT_FALSE(file->truncate(0));
  EXPECT_FALSE(file->punch_hole({0, 1}));
}

// The host takes the part below the limit; the rest must fail, not vanish.
TEST_F(PosixFileTest, AShortWriteIsGoneOnWithAndItsErrorIsReported) {
  const auto file = create("f");
  struct rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto old_handler = signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = old;
  small.rlim_cur = 4096;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::vector<std::byte> data(8192, std::byte{'x'});
  const auto written = file->write_at(data, 0);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
  signal(SIGXFSZ, old_handler);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, EFBIG);
  EXPECT_THAT(written.error().message, HasSubstr("4096 bytes at offset 4096"));
  EXPECT_EQ(file->info().value().size, 4096u);
}

TEST_F(PosixFileTest, InfoTellsWhatTheFileIs) {
  const auto file = create("f");
  ASSERT_TRUE(file->truncate(10 << 20));
  ASSERT_TRUE(file->write_at(bytes_of("x"), 0));
  ASSERT_TRUE(file->sync());
  const auto info = file->info();
  ASSERT_TRUE(info);
  EXPECT_EQ(info->size, 10u << 20);
  EXPECT_GT(info->allocated, 0u);
  EXPECT_LT(info->allocated, 1u << 20);
  EXPECT_EQ(info->owner, geteuid());
  const auto again = open("f", Access::read_only)->info();
  EXPECT_EQ(again->inode, info->inode);
  EXPECT_EQ(again->device, info->device);
  EXPECT_NE(create("g")->info()->inode, info->inode);
}

TEST_F(PosixFileTest, HolesReadAsZerosAndKeepTheSize) {
  const auto file = create("f");
  const std::string data(1 << 20, 'x');
  ASSERT_TRUE(file->write_at(bytes_of(data), 0));
  ASSERT_TRUE(file->punch_hole({65536, 65536}));
  ASSERT_TRUE(file->punch_hole({0, 0}));
  EXPECT_EQ(file->info()->size, data.size());
  EXPECT_EQ(read(*file, 65535, 1), "x");
  EXPECT_EQ(read(*file, 65536, 65536), std::string(65536, '\0'));
  EXPECT_EQ(read(*file, 131072, 1), "x");
}

TEST_F(PosixFileTest, NextDataWalksASparseFile) {
  const auto file = create("f");
  EXPECT_EQ(file->next_data(0).value(), std::nullopt);
  ASSERT_TRUE(file->truncate(8 << 20));
  EXPECT_EQ(file->next_data(0).value(), std::nullopt);
  const std::string data(1 << 20, 'x');
  ASSERT_TRUE(file->write_at(bytes_of(data), 2 << 20));
  ASSERT_TRUE(file->write_at(bytes_of(data), 5 << 20));

  const auto expect = [&](uint64_t from, uint64_t offset, uint64_t length) {
    const auto range = file->next_data(from).value();
    ASSERT_TRUE(range) << from;
    EXPECT_EQ(range->offset, offset) << from;
    EXPECT_EQ(range->length, length) << from;
  };
  expect(0, 2 << 20, 1 << 20);
  expect(2 << 20, 2 << 20, 1 << 20);
  expect((2 << 20) + 4096, (2 << 20) + 4096, (1 << 20) - 4096);
  expect(3 << 20, 5 << 20, 1 << 20);
  EXPECT_EQ(file->next_data(6 << 20).value(), std::nullopt);
  EXPECT_EQ(file->next_data(100 << 20).value(), std::nullopt);

  ASSERT_TRUE(file->punch_hole({5 << 20, 1 << 19}));
  expect(3 << 20, (5 << 20) + (1 << 19), 1 << 19);
  // The last run ends where the file does.
  ASSERT_TRUE(file->write_at(bytes_of("tail"), 8 << 20));
  expect(7 << 20, 8 << 20, 4);
}

TEST_F(PosixFileTest, SetsOwnerAndMode) {
  const auto file = create("f");
  const auto info = file->info().value();
  ASSERT_TRUE(file->set_owner_and_mode(info.owner, info.group, 0640));
  EXPECT_EQ(file->info()->mode, 0640u);
  if (geteuid() == 0) {
    ASSERT_TRUE(file->set_owner_and_mode(12345, 23456, 06755));
    EXPECT_EQ(file->info()->owner, 12345u);
    EXPECT_EQ(file->info()->group, 23456u);
    EXPECT_EQ(file->info()->mode, 06755u);
  } else {
    EXPECT_EQ(file->set_owner_and_mode(0, 0, 0644).error().code, EPERM);
  }
}

// A child process that runs `first`, reports its result and waits for us to end it.
class Child {
 public:
  explicit Child(const std::function<bool()>& first) {
    std::array<int, 2> up{};
    std::array<int, 2> down{};
    if (pipe(up.data()) != 0 || pipe(down.data()) != 0) ADD_FAILURE() << "pipe";
    pid_ = fork();
    if (pid_ == 0) {
      close(down[1]);
      const char report = first() ? 'y' : 'n';
      char ignored;
      if (write(up[1], &report, 1) != 1) _exit(2);
      // Ends when the parent closes its side.
      const ssize_t count = ::read(down[0], &ignored, 1);
      _exit(count == 0 ? 0 : 3);
    }
    close(up[1]);
    close(down[0]);
    hold_ = down[1];
    char report = 0;
    succeeded_ = ::read(up[0], &report, 1) == 1 && report == 'y';
    close(up[0]);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() { end(); }

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] bool succeeded() const { return succeeded_; }

  void end() {
    if (hold_ < 0) return;
    close(hold_);
    hold_ = -1;
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    EXPECT_EQ(status, 0);
  }

 private:
  pid_t pid_ = -1;
  int hold_ = -1;
  bool succeeded_ = false;
};

TEST_F(PosixFileTest, ASecondProcessIsToldWhoHoldsTheLock) {
  create("f");
  Child child([&] {
    auto file = posix_file_system().open(folder_ / "f", Access::read_write);
    // Kept open by the descriptor that dies with the process.
    return file && (*file)->lock(LockMode::exclusive) && file->release() != nullptr;
  });
  ASSERT_TRUE(child.succeeded());
  const auto file = open("f", Access::read_write);
  for (const LockMode mode : {LockMode::exclusive, LockMode::shared}) {
    const auto locked = file->lock(mode);
    ASSERT_FALSE(locked);
    EXPECT_EQ(locked.error().code, EBUSY);
    EXPECT_THAT(locked.error().message,
                HasSubstr(fmt::format("{}: in use by process {} (", folder_ / "f", child.pid())));
    EXPECT_THAT(locked.error().message, HasSubstr("): stop it first (obd-mount umount, if it is attached)"));
  }
  child.end();
  EXPECT_TRUE(file->lock(LockMode::exclusive));
}

TEST_F(PosixFileTest, ASecondFileOfTheSameProcessIsRefusedToo) {
  auto first = create("f");
  ASSERT_TRUE(first->lock(LockMode::exclusive));
  const auto second = open("f", Access::read_write);
  const auto locked = second->lock(LockMode::exclusive);
  ASSERT_FALSE(locked);
  EXPECT_EQ(locked.error().code, EBUSY);
  EXPECT_THAT(locked.error().message, HasSubstr(fmt::format("process {} (", getpid())));
  first.reset();
  EXPECT_TRUE(second->lock(LockMode::exclusive));
}

TEST_F(PosixFileTest, ReadersShareTheLockAndKeepAWriterOut) {
  create("f");
  auto one = open("f", Access::read_only);
  auto two = open("f", Access::read_only);
  const auto writer = open("f", Access::read_write);
  ASSERT_TRUE(one->lock(LockMode::shared));
  ASSERT_TRUE(two->lock(LockMode::shared));
  EXPECT_EQ(writer->lock(LockMode::exclusive).error().code, EBUSY);
  one.reset();
  EXPECT_EQ(writer->lock(LockMode::exclusive).error().code, EBUSY);
  two.reset();
  EXPECT_TRUE(writer->lock(LockMode::exclusive));
}

TEST_F(PosixFileTest, OneFileLocksOnce) {
  const auto file = create("f");
  ASSERT_TRUE(file->lock(LockMode::shared));
  EXPECT_EQ(file->lock(LockMode::exclusive).error().code, EINVAL);
}

TEST_F(PosixFileTest, AnExclusiveLockNeedsAFileOpenForWriting) {
  create("f");
  const auto locked = open("f", Access::read_only)->lock(LockMode::exclusive);
  ASSERT_FALSE(locked);
  EXPECT_EQ(locked.error().code, EBADF);
}

// Locks as another program takes them do not name a process; the file is in use all the same.
TEST_F(PosixFileTest, AHolderWithoutAPidIsReported) {
  const auto file = create("f");
  const int fd = ::open((folder_ / "f").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  struct flock request{};
  request.l_type = F_WRLCK;
  request.l_whence = SEEK_SET;
  ASSERT_EQ(fcntl(fd, F_OFD_SETLK, &request), 0);
  const auto locked = file->lock(LockMode::exclusive);
  close(fd);
  ASSERT_FALSE(locked);
  EXPECT_EQ(locked.error().code, EBUSY);
  EXPECT_EQ(locked.error().message, (folder_ / "f") + ": in use by another process: stop it first");
}

TEST_F(PosixFileTest, AForkedServerNamesItself) {
  auto file = create("f");
  ASSERT_TRUE(file->lock(LockMode::exclusive));
  Child child([&] { return file->refresh_lock_holder().has_value(); });
  ASSERT_TRUE(child.succeeded());
  const auto other = open("f", Access::read_write);

  // Our own byte has been given back: the child's is the only one.
  struct flock query{};
  query.l_type = F_WRLCK;
  query.l_whence = SEEK_SET;
  query.l_start = (off_t{1} << 62) + getpid();
  query.l_len = 1;
  const int fd = ::open((folder_ / "f").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(fcntl(fd, F_OFD_GETLK, &query), 0);
  close(fd);
  EXPECT_EQ(query.l_type, F_UNLCK);

  // The parent lets go, as one does that has become a daemon; the child still holds the lock.
  file.reset();
  const auto locked = other->lock(LockMode::exclusive);
  ASSERT_FALSE(locked);
  EXPECT_THAT(locked.error().message, HasSubstr(fmt::format("process {} (", child.pid())));
  child.end();
  EXPECT_TRUE(other->lock(LockMode::exclusive));
}

TEST_F(PosixFileTest, RefreshWithoutALockOrAForkChangesNothing) {
  const auto file = create("f");
  EXPECT_TRUE(file->refresh_lock_holder());
  const auto other = open("f", Access::read_write);
  ASSERT_TRUE(other->lock(LockMode::exclusive));
  EXPECT_TRUE(other->refresh_lock_holder());
  EXPECT_THAT(file->lock(LockMode::exclusive).error().message,
              HasSubstr(fmt::format("process {} (", getpid())));
}

}  // namespace
}  // namespace obd
