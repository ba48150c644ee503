#include "tools/oci/tar_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <cerrno>

#include "test/oci/tar_builder.h"
#include "test/support/memory_file_system.h"

namespace obd::oci {
namespace {

using test::TarBuilder;
using test::TarMember;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

struct ReadEntry {
  TarEntry entry;
  std::string content;
};

struct ReadTar {
  std::vector<ReadEntry> entries;
  std::vector<std::string> warnings;
};

Result<ReadTar> read_tar(const std::string& bytes) {
  test::MemoryFileSystem fs;
  OBD_TRY_ASSIGN(auto file, fs.create("/l.tar", 0644));
  OBD_TRY(file->write_at(std::as_bytes(std::span(bytes)), 0));
  OBD_TRY_ASSIGN(const auto stream, layer_stream(std::move(file), {}));
  TarReader reader(*stream);
  ReadTar all;
  for (;;) {
    OBD_TRY_ASSIGN(auto entry, reader.next());
    if (!entry) break;
    ReadEntry read{*entry, {}};
    for (const ByteRange& range : entry->data) {
      if (range.length > 1 << 20) return fail(EFBIG, "too much for this test");
      std::string part(range.length, '\0');
      OBD_TRY(reader.read(std::as_writable_bytes(std::span(part))));
      read.content += part;
    }
    all.entries.push_back(std::move(read));
  }
  all.warnings = reader.warnings();
  return all;
}

ReadTar read_right(const std::string& bytes) {
  auto read = read_tar(bytes);
  EXPECT_TRUE(read.has_value()) << read.error().message;
  return read.value_or(ReadTar{});
}

ReadEntry only_entry(const std::string& bytes) {
  ReadTar read = read_right(bytes);
  EXPECT_EQ(read.entries.size(), 1U);
  return read.entries.empty() ? ReadEntry{} : read.entries.front();
}

std::string refusal(const std::string& bytes) {
  const auto read = read_tar(bytes);
  EXPECT_FALSE(read.has_value());
  if (read) return "";
  EXPECT_THAT(read.error().message, HasSubstr("/l.tar"));
  return read.error().message;
}

bool same(const ByteRange& a, uint64_t offset, uint64_t length) {
  return a.offset == offset && a.length == length;
}

std::string gzip(const std::string& text) {
  z_stream state{};
  EXPECT_EQ(::deflateInit2(&state, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(::deflateBound(&state, text.size()) + 64, '\0');
  state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  state.avail_in = static_cast<uInt>(text.size());
  state.next_out = reinterpret_cast<Bytef*>(out.data());
  state.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(::deflate(&state, Z_FINISH), Z_STREAM_END);
  out.resize(state.total_out);
  ::deflateEnd(&state);
  return out;
}

std::string zstd(const std::string& text) {
  std::string out(::ZSTD_compressBound(text.size()), '\0');
  out.resize(::ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

TEST(TarReader, ReadsAllTypesOfUstar) {
  TarBuilder tar;
  tar.add({.name = "file", .content = "hello", .mode = 04755, .uid = 12, .gid = 34, .mtime = 99})
      .directory("dir/")
      .symlink("link", "../target")
      .hard_link("hard", "file")
      .add({.name = "char", .type = '3', .major = 5, .minor = 1})
      .add({.name = "block", .type = '4', .major = 259, .minor = 70000})
      .add({.name = "fifo", .type = '6'});
  const auto read = read_right(tar.finish());
  ASSERT_EQ(read.entries.size(), 7U);
  EXPECT_THAT(read.warnings, IsEmpty());
  const TarEntry& file = read.entries[0].entry;
  EXPECT_EQ(file.path, "file");
  EXPECT_EQ(file.mode, 04755U);
  EXPECT_EQ(file.uid, 12U);
  EXPECT_EQ(file.gid, 34U);
  EXPECT_EQ(file.size, 5U);
  EXPECT_EQ(file.mtime, (Timestamp{99, 0}));
  EXPECT_EQ(read.entries[0].content, "hello");
  EXPECT_EQ(read.entries[1].entry.type, EntryType::directory);
  EXPECT_EQ(read.entries[2].entry.type, EntryType::symlink);
  EXPECT_EQ(read.entries[2].entry.link, "../target");
  EXPECT_EQ(read.entries[3].entry.type, EntryType::hard_link);
  EXPECT_EQ(read.entries[4].entry.type, EntryType::char_device);
  EXPECT_EQ(read.entries[4].entry.major, 5U);
  EXPECT_EQ(read.entries[5].entry.minor, 70000U);
  EXPECT_EQ(read.entries[6].entry.type, EntryType::fifo);
}

TEST(TarReader, ReadsV7WhereASlashMeansADirectory) {
  TarBuilder tar;
  tar.add({.name = "d/", .type = '\0', .magic = ""})
      .add({.name = "d/f", .type = '\0', .content = "x", .magic = ""});
  const auto read = read_right(tar.finish());
  ASSERT_EQ(read.entries.size(), 2U);
  EXPECT_EQ(read.entries[0].entry.type, EntryType::directory);
  EXPECT_EQ(read.entries[1].content, "x");
}

TEST(TarReader, JoinsTheUstarPrefix) {
  std::string header = test::tar_header({.name = "name"}, 0);
  header.replace(345, 6, "a/long");
  test::fix_checksum(header);
  EXPECT_EQ(only_entry(TarBuilder().raw(header).finish()).entry.path, "a/long/name");
}

TEST(TarReader, ReadsGnuLongNamesAndLinks) {
  const std::string name(300, 'n');
  const std::string link(400, 'l');
  TarBuilder tar;
  tar.add({.name = "././@LongLink", .type = 'L', .content = name + '\0'})
      .add({.name = "././@LongLink", .type = 'K', .content = link + '\0'})
      .symlink("short", "short")
      .file("next", "");
  const auto read = read_right(tar.finish());
  ASSERT_EQ(read.entries.size(), 2U);
  EXPECT_EQ(read.entries[0].entry.path, name);
  EXPECT_EQ(read.entries[0].entry.link, link);
  EXPECT_EQ(read.entries[1].entry.path, "next");
}

TEST(TarReader, ReadsPaxRecords) {
  const std::string binary("\0=\n\xff", 4);
  TarBuilder tar;
  tar.pax({{"path", "a/ä name"},
           {"uid", "4000000000"},
           {"gid", "3000000"},
           {"mtime", "1700000000.123456789123"},
           {"atime", "-1.5"},
           {"ctime", "7"},
           {"SCHILY.xattr.security.capability", binary},
           {"SCHILY.xattr.user.empty", ""},
           {"SCHILY.acl.access", "user::rw-,group::r--,other::r--"},
           {"comment", "ignored"}})
      .file("short", "content");
  const auto read = only_entry(tar.finish());
  EXPECT_EQ(read.entry.path, "a/ä name");
  EXPECT_EQ(read.entry.uid, 4000000000U);
  EXPECT_EQ(read.entry.gid, 3000000U);
  EXPECT_EQ(read.entry.mtime, (Timestamp{1700000000, 123456789}));
  EXPECT_EQ(read.entry.atime, (Timestamp{-2, 500000000}));
  EXPECT_EQ(read.entry.ctime, (Timestamp{7, 0}));
  EXPECT_THAT(read.entry.xattrs,
              ElementsAre(Xattr{"security.capability", binary}, Xattr{"user.empty", ""}));
  EXPECT_EQ(read.entry.access_acl, "user::rw-,group::r--,other::r--");
  EXPECT_EQ(read.content, "content");
}

TEST(TarReader, GlobalRecordsCountUntilTheyAreTakenBack) {
  TarBuilder tar;
  tar.pax({{"uid", "77"}, {"mtime", "5"}}, 'g')
      .file("a", "")
      .pax({{"uid", "78"}})
      .file("b", "")
      .file("c", "")
      .pax({{"uid", ""}}, 'g')
      .add({.name = "d", .uid = 3});
  const auto read = read_right(tar.finish());
  ASSERT_EQ(read.entries.size(), 4U);
  EXPECT_EQ(read.entries[0].entry.uid, 77U);
  EXPECT_EQ(read.entries[0].entry.mtime.seconds, 5);
  EXPECT_EQ(read.entries[1].entry.uid, 78U);
  EXPECT_EQ(read.entries[2].entry.uid, 77U);
  EXPECT_EQ(read.entries[3].entry.uid, 3U);
  EXPECT_EQ(read.entries[3].entry.mtime.seconds, 5);
}

TEST(TarReader, ReadsTheAttributesOfOtherPrograms) {
  TarBuilder tar;
  tar.pax({{"LIBARCHIVE.xattr.user.a%3Db", "AQID/w"}, {"RHT.security.selinux", "label"}})
      .file("f", "");
  EXPECT_THAT(only_entry(tar.finish()).entry.xattrs,
              ElementsAre(Xattr{"security.selinux", std::string("label\0", 6)},
                          Xattr{"user.a=b", "\1\2\3\xff"}));
}

TEST(TarReader, ReadsNumbersInBase256) {
  std::string header = test::tar_header({.name = "f"}, 3);
  header.replace(108, 8, std::string("\x80\0\0\0\xee\x6b\x28\0", 8));
  header.replace(136, 12, std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", 12));
  test::fix_checksum(header);
  const auto read = only_entry(TarBuilder().raw(header).raw("abc").finish());
  EXPECT_EQ(read.entry.uid, 4000000000U);
  EXPECT_EQ(read.entry.mtime.seconds, -2);
  header.replace(108, 8, std::string("\xff\xff\xff\xff\xff\xff\xff\xff", 8));
  test::fix_checksum(header);
  EXPECT_THAT(refusal(TarBuilder().raw(header).raw("abc").finish()), HasSubstr("uid -1"));
  header.replace(124, 12, std::string("\x80\1\1\1\1\1\1\1\1\1\1\1", 12));
  test::fix_checksum(header);
  EXPECT_THAT(refusal(TarBuilder().raw(header).raw("abc").finish()), HasSubstr("64 bits"));
}

TEST(TarReader, ReadsEveryKindOfSparseFile) {
  const std::string part(512, 'p');
  // Old GNU, with more ranges than the header holds.
  std::string header = test::tar_header({.name = "s", .type = 'S'}, 6 * 512);
  std::string extension(512, '\0');
  for (size_t i = 0; i < 6; ++i) {
    std::string& block = i < 4 ? header : extension;
    const size_t at = i < 4 ? 386 + i * 24 : (i - 4) * 24;
    block.replace(at, 11, fmt::format("{:011o}", i * 8192));
    block.replace(at + 12, 11, "00000001000");
  }
  header[482] = 1;
  header.replace(483, 11, fmt::format("{:011o}", 100000));
  test::fix_checksum(header);
  TarBuilder old;
  old.raw(header).raw(extension);
  for (int i = 0; i < 6; ++i) old.raw(part);
  auto read = only_entry(old.finish());
  EXPECT_EQ(read.entry.size, 100000U);
  ASSERT_EQ(read.entry.data.size(), 6U);
  EXPECT_TRUE(same(read.entry.data[5], 5 * 8192, 512));
  EXPECT_EQ(read.content.size(), 6 * 512U);

  // 0.0 repeats its keys, 0.1 has a list, 1.0 has it in the content.
  read = only_entry(TarBuilder()
                        .pax({{"GNU.sparse.size", "20000"},
                              {"GNU.sparse.numblocks", "2"},
                              {"GNU.sparse.offset", "4096"},
                              {"GNU.sparse.numbytes", "512"},
                              {"GNU.sparse.offset", "20000"},
                              {"GNU.sparse.numbytes", "0"}})
                        .file("s", part)
                        .finish());
  EXPECT_EQ(read.entry.size, 20000U);
  ASSERT_EQ(read.entry.data.size(), 1U);
  EXPECT_TRUE(same(read.entry.data[0], 4096, 512));
  read = only_entry(TarBuilder()
                        .pax({{"GNU.sparse.major", "0"},
                              {"GNU.sparse.minor", "1"},
                              {"GNU.sparse.name", "real"},
                              {"GNU.sparse.realsize", "9000"},
                              {"GNU.sparse.map", "0,100,8588,412"}})
                        .file("s", part)
                        .finish());
  EXPECT_EQ(read.entry.path, "real");
  ASSERT_EQ(read.entry.data.size(), 2U);
  EXPECT_TRUE(same(read.entry.data[1], 8588, 412));
  EXPECT_EQ(read.content, part);
  std::string map = "2\n1024\n512\n9000\n0\n";
  map.resize(512);
  read = only_entry(TarBuilder()
                        .pax({{"GNU.sparse.major", "1"},
                              {"GNU.sparse.minor", "0"},
                              {"GNU.sparse.name", "real"},
                              {"GNU.sparse.realsize", "9000"}})
                        .file("s", map + part)
                        .finish());
  EXPECT_EQ(read.entry.size, 9000U);
  ASSERT_EQ(read.entry.data.size(), 1U);
  EXPECT_TRUE(same(read.entry.data[0], 1024, 512));
  EXPECT_EQ(read.content, part);
}

TEST(TarReader, RefusesSparseMapsThatMakeNoSense) {
  for (const auto& [map, size] : std::vector<std::pair<std::string, std::string>>{
           {"0,600", "9000"},
           {"0,512", "500"},
           {"512,256,0,256", "9000"},
           {"0,256,255,256", "9000"},
           {"0,256,256", "9000"},
           {"0,512x", "9000"},
           {"18446744073709551615,512", "18446744073709551615"},
           {"9000000000000000000,512", "9000000000000000000"}}) {
    SCOPED_TRACE(map);
    refusal(TarBuilder()
                .pax({{"GNU.sparse.major", "0"},
                      {"GNU.sparse.minor", "1"},
                      {"GNU.sparse.realsize", size},
                      {"GNU.sparse.map", map}})
                .file("s", std::string(512, 'p'))
                .finish());
  }
  EXPECT_THAT(refusal(TarBuilder()
                          .pax({{"GNU.sparse.major", "2"}, {"GNU.sparse.realsize", "1"}})
                          .file("s", "")
                          .finish()),
              HasSubstr("unknown version 2"));
}

TEST(TarReader, ReadsCompressedLayers) {
  TarBuilder tar;
  tar.file("big", std::string(700'000, 'b')).file("small", "s");
  const std::string plain = tar.finish();
  for (const std::string& bytes :
       {gzip(plain), zstd(plain), gzip(plain.substr(0, 1000)) + gzip(plain.substr(1000)),
        zstd(plain.substr(0, 1000)) + zstd(plain.substr(1000)),
        gzip(plain) + std::string(100, '\0')}) {
    const auto read = read_right(bytes);
    ASSERT_EQ(read.entries.size(), 2U);
    EXPECT_EQ(read.entries[0].content, std::string(700'000, 'b'));
  }
  EXPECT_THAT(refusal(gzip(plain).substr(0, 500)), HasSubstr("cut off"));
  EXPECT_THAT(refusal(zstd(plain).substr(0, 50)), HasSubstr("cut off"));
  std::string damaged = gzip(plain);
  damaged[damaged.size() - 6] ^= 1;  // of the checksum, which comes after all content
  EXPECT_THAT(refusal(damaged), HasSubstr("damaged"));
  EXPECT_THAT(refusal("BZh91AY"), HasSubstr("bzip2"));
  EXPECT_THAT(refusal("\xFD"
                      "7zXZ..."),
              HasSubstr("xz"));
}

TEST(TarReader, EveryTruncationIsNoticedOrWarnedOf) {
  TarBuilder tar;
  tar.pax({{"path", "long"}}).file("f", std::string(700, 'x')).directory("d");
  const std::string whole = tar.finish();
  for (size_t size = 1; size < whole.size() - 512; ++size) {
    const auto read = read_tar(whole.substr(0, size));
    // Only between two entries, and nothing tells that from a tar file without an end.
    if (read) {
      EXPECT_EQ(size % 512, 0U);
      EXPECT_THAT(read->warnings, ElementsAre(HasSubstr("may have been cut off"))) << size;
    }
  }
  EXPECT_THAT(read_right(whole).warnings, IsEmpty());
  EXPECT_THAT(refusal(test::tar_header({.name = "x", .type = 'x'}, 0).substr(0, 300)),
              HasSubstr("cut off"));
}

TEST(TarReader, ChecksTheHeader) {
  std::string header = test::tar_header({.name = "f"}, 0);
  header[0] = 'g';
  EXPECT_THAT(refusal(TarBuilder().raw(header).finish()), HasSubstr("checksum"));
  EXPECT_THAT(refusal("no tar file at all" + std::string(2000, 'x')), HasSubstr("checksum"));
  EXPECT_THAT(refusal(""), HasSubstr("is empty"));
  header = test::tar_header({.name = "f"}, 0);
  header.replace(124, 11, "0000000z000");
  test::fix_checksum(header);
  EXPECT_THAT(refusal(TarBuilder().raw(header).finish()), HasSubstr("no octal number"));
  EXPECT_THAT(refusal(TarBuilder().add({.name = "f", .type = 'M'}).finish()), HasSubstr("'M'"));
  EXPECT_THAT(refusal(TarBuilder().add({.name = ""}).finish()), HasSubstr("name is empty"));
  EXPECT_THAT(refusal(TarBuilder().add({.name = "c", .type = '3', .major = 4096}).finish()),
              HasSubstr("device 4096:0"));
  EXPECT_THAT(refusal(std::string(512, '\0') + TarBuilder().file("f", "").finish()),
              HasSubstr("block of zeros"));
}

TEST(TarReader, ChecksPaxHeaders) {
  const auto with = [](const std::string& records) {
    return TarBuilder().add({.name = "p", .type = 'x', .content = records}).file("f", "").finish();
  };
  for (const std::string& records :
       {std::string("9 path=a\n\n"), std::string("99 path=a\n"), std::string("x path=a\n"),
        std::string("10 patha\n\n"), std::string("5 =a\n"), std::string("0 a=b\n"),
        std::string("18446744073709551615 a=b\n"), std::string("11 path=a\0b\n", 12)}) {
    SCOPED_TRACE(records);
    refusal(with(records));
  }
  EXPECT_THAT(refusal(TarBuilder().pax({{"uid", "-1"}}).file("f", "").finish()), HasSubstr("uid"));
  EXPECT_THAT(refusal(TarBuilder().pax({{"mtime", "soon"}}).file("f", "").finish()),
              HasSubstr("no time"));
  EXPECT_THAT(refusal(TarBuilder().pax({{"size", "99999999999999999999"}}).file("f", "").finish()),
              HasSubstr("no size"));
  EXPECT_THAT(refusal(TarBuilder().pax({{"size", "9000000000000000000"}}).file("f", "").finish()),
              ::testing::AnyOf(HasSubstr("too much"), HasSubstr("cut off")));
  // Announced, not there: nothing is taken for it.
  EXPECT_THAT(refusal(test::tar_header({.name = "x", .type = 'x'}, 7 << 20)), HasSubstr("cut off"));
  EXPECT_THAT(refusal(test::tar_header({.name = "x", .type = 'x'}, 9 << 20)),
              HasSubstr("more than"));
  EXPECT_THAT(refusal(test::tar_header({.name = "x", .type = 'L'}, 1 << 20)),
              HasSubstr("more than"));
}

TEST(TarReader, LinksHaveNoContentWhateverTheyAnnounce) {
  TarBuilder tar;
  tar.raw(test::tar_header({.name = "l", .type = '1', .link = "f"}, 4096)).file("f", "after");
  const auto read = read_right(tar.finish());
  ASSERT_EQ(read.entries.size(), 2U);
  EXPECT_EQ(read.entries[1].content, "after");
}

}  // namespace
}  // namespace obd::oci
