#include "tools/snapshotter/labels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

namespace obd::snapshotter {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Labels, HaveALimitedSize) {
  EXPECT_TRUE(check_labels({{"a", std::string(4095, 'x')}}));
  EXPECT_FALSE(check_labels({{"a", std::string(4096, 'x')}}));
  EXPECT_FALSE(check_labels({{"", "x"}}));
}

TEST(Labels, AskForAMode) {
  EXPECT_EQ(*asked_mode({}), std::nullopt);
  EXPECT_EQ(*asked_mode({{label::kWritable, "dir"}}), Mode::dir);
  EXPECT_EQ(*asked_mode({{label::kWritable, "dev"}}), Mode::dev);
  const auto wrong = asked_mode({{label::kWritable, "disk"}});
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code, EINVAL);
  EXPECT_THAT(wrong.error().message, HasSubstr("overlaybd.writable"));
}

TEST(Labels, GiveASizeInGigabytes) {
  EXPECT_EQ(*asked_size({}), 0u);
  EXPECT_EQ(*asked_size({{label::kVirtualSize, "20"}}), uint64_t{20} << 30);
  for (const char* text : {"0", "-1", "1.5", "20G", "99999999999", "99999999999999999999", " 1"}) {
    EXPECT_FALSE(asked_size({{label::kVirtualSize, text}})) << text;
  }
}

TEST(Labels, DescribeAFileSystem) {
  const auto plain = file_system_hint({{label::kFileSystem, "ext4"}});
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->type, "ext4");
  EXPECT_THAT(plain->mount_options, IsEmpty());
  const auto full =
      file_system_hint({{label::kFileSystem, "xfs;noatime,nouuid;-m crc=0 -l size=4m"}});
  ASSERT_TRUE(full);
  EXPECT_EQ(full->type, "xfs");
  EXPECT_THAT(full->mount_options, ElementsAre("noatime", "nouuid"));
  EXPECT_THAT(full->mkfs_options, ElementsAre("-m", "crc=0", "-l", "size=4m"));
  EXPECT_FALSE(file_system_hint({{label::kFileSystem, ";noatime"}}));
  EXPECT_FALSE(file_system_hint({{label::kFileSystem, "../ext4"}}));
}

// Whoever has made an image chooses them.
TEST(Labels, OfAFileSystemDoNotReachTheHost) {
  for (const char* text : {"devtmpfs",
                           "proc",
                           "sysfs",
                           "overlay",
                           "nfs",
                           "tmpfs",
                           "fuse",
                           "ext4;errors=panic",
                           "ext4;journal_path=/dev/sda",
                           "ext4;journal_dev=2048",
                           "xfs;logdev=dev/sda",
                           "ext4;bind",
                           "ext4;remount",
                           "ext4;loop",
                           "ext4;X-mount.mkdir",
                           "btrfs;device=/dev/sda",
                           "btrfs;fatal_errors=panic",
                           "ext4;noatime=/x",
                           "ext4;;-d /etc",
                           "ext4;;-d etc",
                           "ext4;;-qd etc",
                           "ext4;;-z undo",
                           "ext4;;-J device=/dev/sda",
                           "ext4;;-Jdevice=x",
                           "ext4;;-m",
                           "ext4;;-m -d",
                           "ext4;;/dev/sda",
                           "ext4;;-F /dev/sda",
                           "ext4;;-m 0 dev/sda",
                           "ext4;;--help",
                           "xfs;;-p proto",
                           "xfs;;-l logdev=sda",
                           "xfs;;-d file=1,name=x",
                           "btrfs;;--rootdir etc",
                           "btrfs;;-r etc",
                           "f2fs;;-c sda",
                           "erofs;;-m 0"}) {
    const auto hint = file_system_hint({{label::kFileSystem, text}});
    ASSERT_FALSE(hint) << text;
    EXPECT_EQ(hint.error().code, EINVAL) << text;
    EXPECT_THAT(hint.error().message, HasSubstr("blob-fs-type")) << text;
  }
  for (const char* text :
       {"ext4;noatime;-b 4096", "ext4;commit=30,data=ordered;-O ^has_journal -m0 -L my-device",
        "ext4;;-J size=64", "xfs;nouuid;-m reflink=1", "btrfs;compress=zstd;", "ext4;;", "erofs"}) {
    EXPECT_TRUE(file_system_hint({{label::kFileSystem, text}})) << text;
  }
}

TEST(Labels, AndDisksHaveTheSameFileSystems) {
  for (const char* type : {"ext4", "xfs", "btrfs", "erofs"})
    EXPECT_TRUE(is_mountable(type)) << type;
  for (const char* type : {"hfsplus", "ntfs", "proc", ""}) EXPECT_FALSE(is_mountable(type)) << type;
}

TEST(Labels, TellUnpackingFromRunning) {
  EXPECT_TRUE(is_unpacking("default/1/extract-12-ab sha256:00", {}));
  EXPECT_TRUE(is_unpacking("x", {{label::kSnapshotRef, "sha256:00"}}));
  EXPECT_FALSE(is_unpacking("default/1/web", {}));
  EXPECT_FALSE(is_unpacking("extract-/web", {}));
}

}  // namespace
}  // namespace obd::snapshotter
