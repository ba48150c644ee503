#include "tools/oci/layer_applier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "test/oci/ext4_disk.h"
#include "test/oci/tar_builder.h"

namespace obd::oci {
namespace {

using test::content_at;
using test::Ext4Disk;
using test::TarBuilder;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

std::vector<std::string> listing_of(Ext4Disk& disk) { return test::listing(*disk.open()); }

// The paths alone.
std::vector<std::string> paths_of(Ext4Disk& disk) {
  std::vector<std::string> paths;
  for (const std::string& line : listing_of(disk)) paths.push_back(line.substr(0, line.find(' ')));
  return paths;
}

std::string refusal(Ext4Disk& disk, const std::string& tar) {
  const auto applied = disk.apply(tar);
  EXPECT_FALSE(applied.has_value());
  if (applied) return "";
  EXPECT_THAT(applied.error().message, StartsWith("/layer.tar: entry '"));
  return applied.error().message;
}

TEST(LayerApplier, KeepsAllThatAnEntrySays) {
  Ext4Disk disk;
  const std::string capability("\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
  const std::string label(3000, 'v');
  TarBuilder tar;
  tar.directory("d", 01777)
      .pax({{"mtime", "1700000000.123456789"},
            {"uid", "4000000000"},
            {"gid", "70000"},
            {"SCHILY.xattr.security.capability", capability},
            {"SCHILY.xattr.user.large", label},
            {"SCHILY.acl.access", "user::rwx,user:7:r--,group::r-x,mask::rwx,other::---"}})
      .add({.name = "d/setuid", .content = "content", .mode = 04750})
      .pax({{"SCHILY.acl.default", "user::rwx,group::r-x,other::r-x"}})
      .directory("d/with-default")
      .add({.name = "null", .type = '3', .mode = 0666, .major = 1, .minor = 3})
      .add({.name = "wide", .type = '4', .mode = 0660, .major = 259, .minor = 70000})
      .add({.name = "fifo", .type = '6', .mtime = 4'000'000'000})
      .symlink("short", "d/setuid")
      .pax({{"linkpath", std::string(200, 'l') + "/x"}})
      .symlink("long", "l")
      .hard_link("hard", "d/setuid");
  disk.apply_right(tar.finish());
  EXPECT_THAT(disk.warnings, IsEmpty());
  const auto lines = listing_of(disk);
  EXPECT_THAT(lines, Contains("/d 41777 0:0 3 1500000000.000000000"));
  // The link's own header says 0644 and root, as containerd applies it.
  EXPECT_THAT(lines, Contains(StartsWith("/d/setuid 100644 0:0 2 1500000000.000000000 7 bytes")));
  EXPECT_THAT(lines, Contains(HasSubstr("security.capability=\\x01\\x00\\x00\\x02")));
  EXPECT_THAT(lines, Contains(HasSubstr("user.large=" + label)));
  EXPECT_THAT(lines, Contains(HasSubstr("system.posix_acl_access=\\x02\\x00\\x00\\x00")));
  EXPECT_THAT(lines, Contains(AllOf(StartsWith("/d/with-default"),
                                    HasSubstr("system.posix_acl_default=\\x02"))));
  EXPECT_THAT(lines, Contains("/null 20666 0:0 1 1500000000.000000000 device 1:3"));
  EXPECT_THAT(lines, Contains("/wide 60660 0:0 1 1500000000.000000000 device 259:70000"));
  EXPECT_THAT(lines, Contains("/fifo 10644 0:0 1 4000000000.000000000"));
  EXPECT_THAT(lines, Contains("/short 120777 0:0 1 1500000000.000000000 -> d/setuid"));
  EXPECT_THAT(lines, Contains(AllOf(StartsWith("/long"), EndsWith("l/x"))));
  EXPECT_EQ(content_at(disk, "hard"), "content");
}

TEST(LayerApplier, OwnersAndTimesAreWholeNumbers) {
  Ext4Disk disk;
  TarBuilder tar;
  tar.pax({{"mtime", "1700000000.123456789"}, {"uid", "4000000000"}, {"gid", "70000"}})
      .add({.name = "f", .mode = 06711})
      .pax({{"mtime", "-5.25"}})
      .file("old", "")
      .pax({{"mtime", "99999999999"}})
      .file("never", "");
  disk.apply_right(tar.finish());
  EXPECT_THAT(listing_of(disk),
              ElementsAre("/f 106711 4000000000:70000 1 1700000000.123456789 0 bytes",
                          "/never 100644 0:0 1 15032385535.000000000 0 bytes",
                          "/old 100644 0:0 1 -6.750000000 0 bytes"));
  EXPECT_THAT(disk.warnings, ElementsAre(HasSubstr("99999999999")));
}

TEST(LayerApplier, AnEntryTakesThePlaceOfWhatIsThere) {
  Ext4Disk disk;
  disk.apply_right(TarBuilder()
                       .directory("dir")
                       .file("dir/in", "in")
                       .file("file", "old")
                       .symlink("link", "dir")
                       .directory("merged", 0700)
                       .file("merged/lower", "l")
                       .finish());
  disk.apply_right(TarBuilder()
                       .file("dir", "now a file")
                       .directory("file")
                       .file("file/in", "now a directory")
                       .directory("link")
                       .add({.name = "merged", .type = '5', .mode = 0755, .uid = 5})
                       .file("merged/upper", "u")
                       .finish());
  EXPECT_EQ(content_at(disk, "dir"), "now a file");
  EXPECT_EQ(content_at(disk, "file/in"), "now a directory");
  EXPECT_THAT(paths_of(disk), ElementsAre("/dir", "/file", "/file/in", "/link", "/merged",
                                          "/merged/lower", "/merged/upper"));
  EXPECT_THAT(listing_of(disk), Contains(StartsWith("/merged 40755 5:0")));
}

TEST(LayerApplier, ADirectorysAttributesAreReplaced) {
  Ext4Disk disk;
  disk.apply_right(TarBuilder()
                       .pax({{"SCHILY.xattr.user.old", "1"}, {"SCHILY.xattr.user.both", "1"}})
                       .directory("d")
                       .finish());
  disk.apply_right(TarBuilder().pax({{"SCHILY.xattr.user.both", "2"}}).directory("d").finish());
  EXPECT_THAT(listing_of(disk), ElementsAre(EndsWith(" user.both=2")));
}

TEST(LayerApplier, WhiteoutsRemoveWhatLayersBelowHave) {
  Ext4Disk disk;
  disk.apply_right(TarBuilder()
                       .directory("gone")
                       .directory("gone/deep")
                       .file("gone/deep/f", "x")
                       .file("also-gone", "x")
                       .directory("opaque")
                       .file("opaque/lower", "x")
                       .directory("opaque/sub")
                       .file("opaque/sub/lower", "x")
                       .directory("kept")
                       .file("kept/lower", "x")
                       .finish());
  disk.apply_right(TarBuilder()
                       .file(".wh.gone", "")
                       .file(".wh.also-gone", "")
                       .file(".wh.never-was", "")
                       .directory("opaque")
                       .directory("opaque/sub")
                       .file("opaque/sub/upper", "u")
                       .file("opaque/.wh..wh..opq", "")
                       .file("opaque/after", "u")
                       .finish());
  EXPECT_THAT(paths_of(disk), ElementsAre("/kept", "/kept/lower", "/opaque", "/opaque/after",
                                          "/opaque/sub", "/opaque/sub/upper"));
}

TEST(LayerApplier, WhiteoutsLeaveWhatTheirOwnLayerBrings) {
  const auto lower = TarBuilder().directory("d").file("d/lower", "x").file("f", "lower").finish();
  const std::string before_and_after[] = {TarBuilder()
                                              .file("f", "upper")
                                              .directory("d")
                                              .file("d/upper", "u")
                                              .file(".wh.f", "")
                                              .file(".wh.d", "")
                                              .finish(),
                                          TarBuilder()
                                              .file(".wh.f", "")
                                              .file(".wh.d", "")
                                              .file("f", "upper")
                                              .directory("d")
                                              .file("d/upper", "u")
                                              .finish()};
  for (const std::string& upper : before_and_after) {
    Ext4Disk disk;
    disk.apply_right(lower);
    disk.apply_right(upper);
    EXPECT_THAT(paths_of(disk), ElementsAre("/d", "/d/upper", "/f"));
    EXPECT_EQ(content_at(disk, "f"), "upper");
  }
}

TEST(LayerApplier, RefusesWhiteoutsOfNothing) {
  for (const char* name : {".wh.", ".wh..", ".wh...", "d/.wh..."}) {
    Ext4Disk disk;
    EXPECT_THAT(refusal(disk, TarBuilder().file(name, "").finish()), HasSubstr("whiteout"));
  }
}

TEST(LayerApplier, NoPathLeavesTheRoot) {
  Ext4Disk disk;
  disk.apply_right(TarBuilder()
                       .symlink("up", "../../..")
                       .symlink("abs", "/real")
                       .symlink("dangling", "made/on/the/way")
                       .file("../../escaped", "e")
                       .file("/absolute", "a")
                       .file("a/../b/./c", "c")
                       .file("up/through-up", "t")
                       .file("abs/through-abs", "t")
                       .file("dangling/f", "f")
                       .finish());
  EXPECT_THAT(paths_of(disk),
              ElementsAre("/abs", "/absolute", "/b", "/b/c", "/dangling", "/escaped", "/made",
                          "/made/on", "/made/on/the", "/made/on/the/way", "/made/on/the/way/f",
                          "/real", "/real/through-abs", "/through-up", "/up"));
}

TEST(LayerApplier, RefusesPathsThatLeadNowhere) {
  Ext4Disk disk;
  disk.apply_right(TarBuilder().symlink("a", "b").symlink("b", "a").file("file", "").finish());
  EXPECT_THAT(refusal(disk, TarBuilder().file("a/f", "").finish()), HasSubstr("too many"));
  EXPECT_THAT(refusal(disk, TarBuilder().file("file/f", "").finish()),
              HasSubstr("'file', and that is no directory"));
  EXPECT_THAT(
      refusal(disk, TarBuilder().pax({{"path", std::string(256, 'n')}}).file("n", "").finish()),
      HasSubstr("more than 255"));
  std::string deep;
  while (deep.size() < 4096) deep += "d/";
  EXPECT_THAT(refusal(disk, TarBuilder().pax({{"path", deep}}).file("n", "").finish()),
              HasSubstr("more than 4095"));
  EXPECT_THAT(refusal(disk, TarBuilder().file(".", "").finish()), HasSubstr("the root"));
}

TEST(LayerApplier, HardLinks) {
  Ext4Disk disk;
  disk.apply_right(TarBuilder().file("f", "one").symlink("s", "elsewhere").directory("d").finish());
  disk.apply_right(TarBuilder()
                       .hard_link("d/l", "/f")
                       .hard_link("t", "s")
                       .hard_link("f", "f")
                       .hard_link("../l2", "../../f")
                       .finish());
  EXPECT_EQ(content_at(disk, "d/l"), "one");
  EXPECT_THAT(listing_of(disk), Contains(StartsWith("/f 100644 0:0 3 ")));
  EXPECT_THAT(listing_of(disk),
              Contains(AllOf(StartsWith("/t 120777 0:0 2 "), EndsWith("-> elsewhere"))));
  // One name goes, the others stay.
  disk.apply_right(TarBuilder().file(".wh.f", "").finish());
  EXPECT_EQ(content_at(disk, "l2"), "one");
  EXPECT_THAT(refusal(disk, TarBuilder().hard_link("x", "missing").finish()),
              HasSubstr("'missing'"));
  EXPECT_THAT(refusal(disk, TarBuilder().hard_link("x", "d").finish()), HasSubstr("directory"));
  EXPECT_THAT(refusal(disk, TarBuilder().hard_link("x", ".").finish()), HasSubstr("the root"));
  EXPECT_THAT(refusal(disk, TarBuilder().hard_link("x", "nowhere/f").finish()),
              HasSubstr("'nowhere'"));
}

TEST(LayerApplier, FilesKeepTheirHolesAndTheirBytes) {
  Ext4Disk disk;
  std::string content(3 << 20, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7 + i / 4096);
  disk.apply_right(TarBuilder()
                       .file("large", content)
                       .file("block", content.substr(0, 4096))
                       .file("odd", content.substr(0, 4097))
                       .pax({{"GNU.sparse.major", "0"},
                             {"GNU.sparse.minor", "1"},
                             {"GNU.sparse.realsize", "5000000000"},
                             {"GNU.sparse.map", "100,200,4000,200,4999999000,112"}})
                       .file("sparse", content.substr(0, 512))
                       .finish());
  EXPECT_EQ(content_at(disk, "large"), content);
  EXPECT_EQ(content_at(disk, "block"), content.substr(0, 4096));
  EXPECT_EQ(content_at(disk, "odd"), content.substr(0, 4097));
  EXPECT_THAT(listing_of(disk),
              Contains(AllOf(StartsWith("/sparse"), HasSubstr("5000000000 bytes"))));
  const auto fs = disk.open();
  const auto inode = fs->lookup(Ext4::kRoot, "sparse").value().value();
  EXPECT_EQ(fs->read_content(inode, 1).error().code, EFBIG);
}

TEST(LayerApplier, SmallSparseFilesReadAsTheirMapSays) {
  Ext4Disk disk;
  disk.apply_right(TarBuilder()
                       .pax({{"GNU.sparse.major", "0"},
                             {"GNU.sparse.minor", "1"},
                             {"GNU.sparse.realsize", "20000"},
                             {"GNU.sparse.map", "10,5,4090,12,16000,3"}})
                       .file("s", "abcdeABCDEFGHIJKLxyz")
                       .finish());
  std::string wanted(20000, '\0');
  wanted.replace(10, 5, "abcde").replace(4090, 12, "ABCDEFGHIJKL").replace(16000, 3, "xyz");
  EXPECT_EQ(content_at(disk, "s"), wanted);
}

TEST(LayerApplier, AFullDiskIsAnErrorThatSaysSo) {
  Ext4Disk disk;
  const auto applied = disk.apply(TarBuilder().file("big", std::string(20 << 20, 'b')).finish());
  ASSERT_FALSE(applied.has_value());
  EXPECT_EQ(applied.error().code, ENOSPC);
  EXPECT_THAT(applied.error().message, HasSubstr("'big'"));
  TarBuilder many;
  for (int i = 0; i < 3000; ++i) many.file(fmt::format("f{}", i), "");
  const auto inodes = disk.apply(many.finish());
  ASSERT_FALSE(inodes.has_value());
  EXPECT_EQ(inodes.error().code, ENOSPC);
  EXPECT_THAT(inodes.error().message, HasSubstr("no inodes left"));
}

TEST(LayerApplier, WhatCannotBeKeptIsSaid) {
  Ext4Disk disk;
  disk.apply_right(TarBuilder()
                       .pax({{"SCHILY.xattr.com.apple.quarantine", "q"}})
                       .file("a", "")
                       .pax({{"SCHILY.acl.default", "user::rwx,group::r-x,other::r-x"}})
                       .file("b", "")
                       .pax({{"SCHILY.acl.access", "user::rwx,group::r-x,other::r-x"}})
                       .symlink("c", "d")
                       .file(".wh..wh.plnk/1.2", "")
                       .finish());
  EXPECT_THAT(disk.warnings,
              ElementsAre(HasSubstr("com.apple.quarantine"), HasSubstr("default ACL"),
                          HasSubstr("symbolic link"), HasSubstr("aufs")));
  EXPECT_THAT(
      refusal(disk,
              TarBuilder().pax({{"SCHILY.acl.access", "user:lisa:r--"}}).file("d", "").finish()),
      HasSubstr("lisa"));
  EXPECT_THAT(refusal(disk, TarBuilder()
                                .pax({{"SCHILY.xattr.user.huge", std::string(65537, 'h')}})
                                .file("e", "")
                                .finish()),
              HasSubstr("more than 65536"));
  EXPECT_THAT(refusal(disk, TarBuilder()
                                .pax({{"SCHILY.xattr.user.huge", std::string(9000, 'h')}})
                                .file("e", "")
                                .finish()),
              HasSubstr("9000 bytes"));
}

TEST(LayerApplier, TheRootHasAttributes) {
  Ext4Disk disk;
  disk.apply_right(TarBuilder()
                       .pax({{"SCHILY.xattr.user.root", "r"}})
                       .add({.name = "./", .type = '5', .mode = 0711, .uid = 9})
                       .finish());
  const auto fs = disk.open();
  const auto info = fs->info(Ext4::kRoot).value();
  EXPECT_EQ(info.mode & 07777, 0711U);
  EXPECT_EQ(info.uid, 9U);
  EXPECT_THAT(fs->xattrs(Ext4::kRoot).value(), ElementsAre(Xattr{"user.root", "r"}));
}

TEST(LayerApplier, LargeDirectories) {
  Ext4Disk disk;
  TarBuilder tar;
  tar.directory("d");
  for (int i = 0; i < 1500; ++i) tar.symlink(fmt::format("d/a-rather-long-name-{:06}", i), "x");
  disk.apply_right(tar.finish());
  EXPECT_EQ(paths_of(disk).size(), 1501U);
  disk.apply_right(TarBuilder().file("d/.wh..wh..opq", "").finish());
  EXPECT_THAT(paths_of(disk), ElementsAre("/d"));
}

TEST(LayerApplier, DirectoriesWithMoreSubdirectoriesThanTheCountHolds) {
  // The count is set by hand: making so many would take long.
  Ext4Disk disk;
  disk.apply_right(TarBuilder().directory("d").directory("d/1").directory("d/1/x").finish());
  EXPECT_THAT(listing_of(disk), Contains(StartsWith("/d 40755 0:0 3 ")));
  disk.apply_right(TarBuilder().file("d/.wh.1", "").finish());
  EXPECT_THAT(listing_of(disk), ElementsAre(StartsWith("/d 40755 0:0 2 ")));
}

TEST(LayerApplier, OtherKindsOfExt) {
  for (const char* options :
       {"-t ext2", "-t ext3", "-b 1024 -O ^metadata_csum", "-b 2048 -I 128", "-O inline_data",
        "-O ^has_journal,sparse_super,flex_bg -G 1", "-O ^extents,^64bit"}) {
    SCOPED_TRACE(options);
    Ext4Disk disk(options);
    std::string content(300'000, 'x');
    disk.apply_right(TarBuilder()
                         .directory("d")
                         .pax({{"SCHILY.xattr.user.a", std::string(500, 'v')}})
                         .file("d/f", content)
                         .symlink("d/l", std::string(100, 'l'))
                         .finish());
    disk.apply_right(TarBuilder().file(".wh.d", "").directory("e").file("e/g", "g").finish());
    EXPECT_EQ(content_at(disk, "e/g"), "g");
    EXPECT_THAT(paths_of(disk), ElementsAre("/e", "/e/g"));
  }
}

TEST(LayerApplier, RefusesFileSystemsThatItWouldRuin) {
  test::MemoryFileSystem host;
  auto file = host.create("/disk", 0644).value();
  ASSERT_TRUE(file->truncate(1 << 20).has_value());
  FileDisk empty(*file, 1 << 20);
  const auto none = Ext4::open(empty, {.name = "/disk"});
  ASSERT_FALSE(none.has_value());
  EXPECT_THAT(none.error().message, HasSubstr("no ext4"));
  Ext4Disk disk;
  const auto patched = [&](uint64_t offset, std::vector<uint8_t> bytes) {
    EXPECT_TRUE(disk.disk().write(std::as_bytes(std::span(bytes)), 1024 + offset).has_value());
    const auto opened = Ext4::open(disk.disk(), {.name = "/disk"});
    return opened ? std::string("opened") : opened.error().message;
  };
  EXPECT_THAT(patched(0x3A, {0, 0}), AnyOf(HasSubstr("not clean"), HasSubstr("checksum")));
}

TEST(LayerApplier, TheSameLayersGiveTheSameDisk) {
  const std::string tar = TarBuilder().directory("d").file("d/f", "x").symlink("l", "d").finish();
  Ext4Disk one;
  Ext4Disk two;
  one.apply_right(tar);
  two.apply_right(tar);
  EXPECT_EQ(one.bytes(), two.bytes());
}

}  // namespace
}  // namespace obd::oci
