// The in-memory host behaves as the real one does, where tests rely on it.

#include "test/support/memory_file_system.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>

namespace obd::test {
namespace {

std::vector<std::byte> bytes(size_t count, int value) {
  return std::vector<std::byte>(count, static_cast<std::byte>(value));
}

std::vector<std::byte> read(const File& file, uint64_t offset, size_t count) {
  std::vector<std::byte> out(count);
  const auto got = file.read_at(out, offset);
  EXPECT_TRUE(got);
  out.resize(*got);
  return out;
}

class MemoryFileSystemTest : public ::testing::Test {
 protected:
  std::unique_ptr<File> create(const std::string& path) {
    auto file = fs_.create(path, 0600);
    EXPECT_TRUE(file);
    return std::move(*file);
  }

  MemoryFileSystem fs_;
};

TEST_F(MemoryFileSystemTest, FilesAreSparseInBlocks) {
  auto file = create("/d/f");
  const uint64_t far = (uint64_t{1} << 62) + 10;
  ASSERT_TRUE(file->write_at(bytes(100, 7), far));
  EXPECT_EQ(file->info()->size, far + 100);
  EXPECT_EQ(file->info()->allocated, 4096u);
  EXPECT_EQ(read(*file, far - 5, 10), [] {
    auto expected = bytes(10, 7);
    std::memset(expected.data(), 0, 5);
    return expected;
  }());
  EXPECT_EQ(read(*file, far + 90, 100).size(), 10u);

  auto data = file->next_data(0);
  ASSERT_TRUE(data && *data);
  EXPECT_EQ((*data)->offset, far - 10);
  EXPECT_EQ((*data)->length, 110u);
  EXPECT_FALSE(*file->next_data(far + 100));
}

TEST_F(MemoryFileSystemTest, PunchingFreesWholeBlocksAndZeroesParts) {
  auto file = create("/d/f");
  ASSERT_TRUE(file->write_at(bytes(4 * 4096, 7), 0));
  ASSERT_TRUE(file->punch_hole({4000, 4096 + 4096}));
  EXPECT_EQ(file->info()->allocated, 3 * 4096u);
  EXPECT_EQ(file->info()->size, 4 * 4096u);
  EXPECT_EQ(read(*file, 3999, 2)[0], std::byte{7});
  EXPECT_EQ(read(*file, 4000, 8192), bytes(8192, 0));
  EXPECT_EQ(read(*file, 4000 + 8192, 1)[0], std::byte{7});
}

TEST_F(MemoryFileSystemTest, TruncatingForgetsWhatLiesBehind) {
  auto file = create("/d/f");
  ASSERT_TRUE(file->write_at(bytes(8192, 7), 0));
  ASSERT_TRUE(file->truncate(100));
  ASSERT_TRUE(file->truncate(8192));
  EXPECT_EQ(read(*file, 0, 100), bytes(100, 7));
  EXPECT_EQ(read(*file, 100, 8092), bytes(8092, 0));
  EXPECT_EQ(file->info()->allocated, 4096u);
}

TEST_F(MemoryFileSystemTest, NamesAndLocks) {
  auto file = create("/d/f");
  EXPECT_EQ(fs_.create("/d/f", 0600).error().code, EEXIST);
  auto second = fs_.open("/d/f", Access::read_only);
  ASSERT_TRUE(second);
  EXPECT_EQ((*second)->write_at(bytes(1, 1), 0).error().code, EBADF);

  ASSERT_TRUE((*second)->lock(LockMode::shared));
  ASSERT_TRUE(file->lock(LockMode::shared));
  EXPECT_EQ(file->lock(LockMode::exclusive).error().code, EBUSY);
  second->reset();
  EXPECT_TRUE(file->lock(LockMode::exclusive));

  ASSERT_TRUE(file->write_at(bytes(1, 9), 0));
  auto other = create("/d/g");
  EXPECT_EQ(fs_.rename_new("/d/f", "/d/g").error().code, EEXIST);
  ASSERT_TRUE(fs_.rename("/d/f", "/d/g"));
  EXPECT_FALSE(*fs_.exists("/d/f"));
  EXPECT_EQ(read(**fs_.open("/d/g", Access::read_only), 0, 1), bytes(1, 9));
  EXPECT_EQ(*fs_.canonical("/d/x/../g"), "/d/g");
  ASSERT_TRUE(fs_.remove("/d/g"));
  EXPECT_EQ(fs_.open("/d/g", Access::read_only).error().code, ENOENT);
}

TEST_F(MemoryFileSystemTest, FaultsHitTheOperationAskedFor) {
  auto file = create("/d/data");
  auto other = create("/d/index");
  fs_.inject({.operation = Operation::write, .nth = 2, .path_suffix = "data", .prefix = 3});
  EXPECT_TRUE(file->write_at(bytes(10, 1), 0));
  EXPECT_TRUE(other->write_at(bytes(10, 1), 0));
  const auto failed = file->write_at(bytes(10, 2), 10);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, EIO);
  EXPECT_EQ(file->info()->size, 13u);
  EXPECT_TRUE(file->write_at(bytes(10, 3), 0));
  EXPECT_EQ(fs_.faults_hit(), 1u);

  fs_.clear_faults();
  fs_.inject({.operation = Operation::sync, .sticky = true});
  EXPECT_FALSE(file->sync());
  EXPECT_FALSE(other->sync());
}

TEST_F(MemoryFileSystemTest, AFullDiskCutsWritesShort) {
  auto file = create("/d/f");
  ASSERT_TRUE(file->write_at(bytes(4096, 1), 0));
  fs_.set_space_limit(8192);
  const auto full = file->write_at(bytes(8192, 2), 2048);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ENOSPC);
  EXPECT_EQ(file->info()->size, 8192u);
  EXPECT_TRUE(file->write_at(bytes(8192, 3), 0)) << "blocks that are there need no space";
  ASSERT_TRUE(file->punch_hole({0, 4096}));
  EXPECT_EQ(fs_.allocated(), 4096u);
  auto other = create("/d/g");
  EXPECT_TRUE(other->write_at(bytes(1, 1), 0));
  ASSERT_TRUE(fs_.remove("/d/f"));
  EXPECT_TRUE(other->write_at(bytes(1, 1), 4096));
}

TEST_F(MemoryFileSystemTest, RecordsInOrder) {
  auto file = create("/d/f");
  fs_.start_recording();
  ASSERT_TRUE(file->write_at(bytes(5, 1), 3));
  EXPECT_EQ(fs_.mark("here"), 1u);
  ASSERT_TRUE(file->sync());
  fs_.inject({.operation = Operation::sync});
  EXPECT_FALSE(file->sync());
  ASSERT_TRUE(fs_.rename("/d/f", "/d/g"));
  ASSERT_TRUE(fs_.sync_directory("/d"));
  const Trace trace = fs_.take_trace();
  std::vector<TraceKind> kinds;
  for (const TraceEntry& entry : trace) kinds.push_back(entry.kind);
  EXPECT_EQ(kinds, (std::vector{TraceKind::write, TraceKind::mark, TraceKind::sync_begin,
                                TraceKind::sync_end, TraceKind::sync_begin, TraceKind::sync_failed,
                                TraceKind::rename, TraceKind::sync_directory}));
  EXPECT_EQ(trace[3].begun, 2u);
}

}  // namespace
}  // namespace obd::test
