// The disks that CrashDisk makes are the legal ones, all of them.

#include "test/support/crash_disk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "test/support/memory_file_system.h"

namespace obd::test {
namespace {

using Disks = std::set<std::string>;

class CrashDiskTest : public ::testing::Test {
 protected:
  void SetUp() override {
    file_ = std::move(*fs_.create("/d/f", 0600));
    write(0, 1024, 'a');
    start_ = fs_.state();
    fs_.start_recording();
  }

  void write(uint64_t offset, size_t length, char value) {
    ASSERT_TRUE(
        file_->write_at(std::vector<std::byte>(length, static_cast<std::byte>(value)), offset));
  }

  // What each 512 bytes of the file begin with, for every disk that can be left: "." for zero.
  Disks disks() {
    trace_ = fs_.take_trace();
    CrashDisk disk(start_, trace_, 1);
    disk.advance_to(trace_.size());
    Disks found;
    EveryChoice choice;
    do {
      found.insert(text(disk.power_cut(choice)));
    } while (choice.next());
    RandomChooser random(1);
    Disks some;
    for (int i = 0; i < 2000; ++i) some.insert(text(disk.power_cut(random)));
    // Only chance brings every one of many disks; and chance alone brings garbage.
    if (found.size() < 20) {
      EXPECT_TRUE(std::includes(some.begin(), some.end(), found.begin(), found.end()));
    }
    return found;
  }

  static std::string text(const DiskState& state) {
    std::string result;
    for (const auto& [name, number] : state.names) {
      const SparseBytes& bytes = state.files.at(number);
      result += name + ":";
      for (uint64_t at = 0; at < bytes.size(); at += 512) {
        std::byte first{};
        bytes.read(std::span(&first, 1), at);
        result += first == std::byte{0} ? '.' : static_cast<char>(first);
      }
      result += ' ';
    }
    return result;
  }

  MemoryFileSystem fs_;
  std::unique_ptr<File> file_;
  DiskState start_;
  Trace trace_;
};

TEST_F(CrashDiskTest, SyncedOperationsAreThere) {
  write(0, 512, 'b');
  ASSERT_TRUE(file_->sync());
  EXPECT_EQ(disks(), (Disks{"/d/f:ba "}));
}

TEST_F(CrashDiskTest, UnsyncedSectorsAreOldOrNewEachForItself) {
  write(0, 1024, 'b');
  EXPECT_EQ(disks(), (Disks{"/d/f:aa ", "/d/f:ab ", "/d/f:ba ", "/d/f:bb "}));
}

TEST_F(CrashDiskTest, ASectorHasAnyOfItsVersions) {
  write(0, 512, 'b');
  write(0, 512, 'c');
  EXPECT_EQ(disks(), (Disks{"/d/f:aa ", "/d/f:ba ", "/d/f:ca "}));
}

TEST_F(CrashDiskTest, SizeAndContentComeApart) {
  write(1024, 512, 'b');
  EXPECT_EQ(disks(), (Disks{"/d/f:aa ", "/d/f:aa. ", "/d/f:aab "}));
}

TEST_F(CrashDiskTest, WhatTheFileGrewOverMayBeGarbage) {
  write(1024, 512, 'b');
  trace_ = fs_.take_trace();
  CrashDisk disk(start_, trace_, 1);
  disk.advance_to(trace_.size());
  RandomChooser random(1);
  bool garbage = false;
  for (int i = 0; i < 2000 && !garbage; ++i) {
    const std::string found = text(disk.power_cut(random));
    EXPECT_EQ(found.substr(0, 7), "/d/f:aa");
    garbage = found[7] != ' ' && found[7] != '.' && found[7] != 'b';
  }
  EXPECT_TRUE(garbage);
}

TEST_F(CrashDiskTest, ARecordTearsAtEveryByte) {
  write(1024, 16, 'b');
  trace_ = fs_.take_trace();
  CrashDisk disk(start_, trace_, 1);
  disk.advance_to(trace_.size());
  std::set<uint64_t> sizes;
  EveryChoice choice;
  do {
    const DiskState state = disk.power_cut(choice);
    sizes.insert(state.files.at(state.names.at("/d/f")).size());
  } while (choice.next());
  EXPECT_EQ(sizes.size(), 17u);
}

TEST_F(CrashDiskTest, TruncationMayNotHaveHappened) {
  ASSERT_TRUE(file_->truncate(512));
  write(512, 512, 'b');
  // What the device holds between a truncation and the write after it are zeros.
  EXPECT_EQ(disks(), (Disks{"/d/f:aa ", "/d/f:a ", "/d/f:ab ", "/d/f:a. "}));
}

TEST_F(CrashDiskTest, HolesMayNotHaveHappened) {
  write(0, 8192, 'b');
  ASSERT_TRUE(file_->sync());
  start_ = fs_.state();
  fs_.start_recording();
  ASSERT_TRUE(file_->punch_hole({4096, 4096}));
  const Disks found = disks();
  EXPECT_EQ(found.size(), 256u);
  EXPECT_TRUE(found.contains("/d/f:bbbbbbbbbbbbbbbb "));
  EXPECT_TRUE(found.contains("/d/f:bbbbbbbb........ "));
}

TEST_F(CrashDiskTest, AnEmptiedBlockIsAHole) {
  write(0, 8192, 'b');
  ASSERT_TRUE(file_->sync());
  ASSERT_TRUE(file_->punch_hole({4096, 4096}));
  ASSERT_TRUE(file_->sync());
  trace_ = fs_.take_trace();
  CrashDisk disk(start_, trace_, 1);
  disk.advance_to(trace_.size());
  RandomChooser random(1);
  EXPECT_EQ(disk.power_cut(random).files.begin()->second.allocated(), 4096u);
}

TEST_F(CrashDiskTest, NamesNeedTheirFolderSynced) {
  auto other = std::move(*fs_.create("/d/g", 0600));
  ASSERT_TRUE(other->sync());
  EXPECT_EQ(disks(), (Disks{"/d/f:aa ", "/d/f:aa /d/g: "}));
}

TEST_F(CrashDiskTest, RenamesAreWhole) {
  auto other = std::move(*fs_.create("/d/g", 0600));
  ASSERT_TRUE(fs_.sync_directory("/d"));
  ASSERT_TRUE(fs_.rename("/d/g", "/d/f"));
  EXPECT_EQ(disks(), (Disks{"/d/f:aa /d/g: ", "/d/f: "}));
}

TEST_F(CrashDiskTest, AFailedSyncLeavesItOpenForGood) {
  write(0, 512, 'b');
  fs_.inject({.operation = Operation::sync});
  EXPECT_FALSE(file_->sync());
  write(512, 512, 'c');
  ASSERT_TRUE(file_->sync());
  trace_ = fs_.take_trace();
  Disks found;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    CrashDisk disk(start_, trace_, seed);
    disk.advance_to(trace_.size());
    RandomChooser random(seed);
    found.insert(text(disk.power_cut(random)));
  }
  EXPECT_EQ(found, (Disks{"/d/f:ac ", "/d/f:bc "}));
}

TEST_F(CrashDiskTest, TheCacheSurvivesTheServer) {
  write(0, 512, 'b');
  write(512, 512, 'c');
  trace_ = fs_.take_trace();
  CrashDisk disk(start_, trace_, 1);
  disk.advance_to(1);
  EXPECT_EQ(text(disk.server_death(0)), "/d/f:ba ");
  EXPECT_EQ(text(disk.server_death(1)), "/d/f:bc ");
  EXPECT_EQ(disk.unsynced(), 1u);

  // What the next server does goes on from there.
  MemoryFileSystem later(disk.server_death(0), "first-boot");
  later.start_recording(truncated_trace(trace_, 1, 0));
  auto file = std::move(*later.open("/d/f", Access::read_write));
  ASSERT_TRUE(file->sync());
  const Trace whole = later.take_trace();
  CrashDisk both(start_, whole, 1);
  both.advance_to(whole.size());
  RandomChooser random(1);
  EXPECT_EQ(text(both.power_cut(random)), "/d/f:ba ");
}

}  // namespace
}  // namespace obd::test
