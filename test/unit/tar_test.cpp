#include "core/format/tar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "core/io/file.h"

namespace obd::tar {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr size_t kTypeAt = 156;
constexpr size_t kSizeAt = 124;

std::vector<std::byte> fixture(const std::string& name) {
  const std::string text =
      read_whole(posix_file_system(), OBD_SOURCE_DIR "/test/fixtures/" + name, 1 << 20).value();
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// A ustar header on its own, as tar programs write it.
std::vector<std::byte> header_of(std::string_view size_octal, char type = '0') {
  std::string text(kBlockSize, '\0');
  text.replace(0, 5, "layer");
  text.replace(kSizeAt, size_octal.size(), size_octal);
  text[kTypeAt] = type;
  text.replace(257, 8, std::string("ustar\00000", 8));
  unsigned sum = 8 * ' ';
  for (const char c : text) sum += static_cast<unsigned char>(c);
  text.replace(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

std::vector<std::byte> with_pax(std::string_view records) {
  auto bytes = header_of(fmt::format("{:011o}", records.size()), 'x');
  std::string padded(records);
  padded.resize((records.size() + kBlockSize - 1) / kBlockSize * kBlockSize);
  const auto data = std::as_bytes(std::span(padded));
  bytes.insert(bytes.end(), data.begin(), data.end());
  const auto member = header_of("00000000012");
  bytes.insert(bytes.end(), member.begin(), member.end());
  return bytes;
}

std::string refusal(const std::vector<std::byte>& start, uint64_t file_size = 1 << 20) {
  const auto found = find_member(start, file_size, "/a/layer.tar");
  if (found) return fmt::format("found at {}, {} bytes", found->offset, found->length);
  EXPECT_EQ(found.error().code, EINVAL);
  EXPECT_THAT(found.error().message, StartsWith("/a/layer.tar: tar "));
  return found.error().message;
}

TEST(Tar, HeadersAreThoseThatOverlaybdWrites) {
  const auto file = fixture("05-zfile-tar/layer.tar");
  const auto member = find_member(file, file.size(), "layer.tar").value();
  EXPECT_EQ(member.offset, kPrefixSize);
  EXPECT_EQ(member.length, 54123U);
  const auto prefix = encode_prefix(member.length);
  EXPECT_TRUE(std::equal(prefix.begin(), prefix.end(), file.begin()));
  EXPECT_EQ(kPrefixSize + member.length + suffix_size(member.length), file.size());
}

TEST(Tar, WhatWasEncodedIsFound) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{9}, uint64_t{10}, uint64_t{99},
                              uint64_t{8191}, uint64_t{1} << 33, (uint64_t{1} << 62) + 1}) {
    const auto member = find_member(encode_prefix(size), size + kPrefixSize, "x");
    ASSERT_TRUE(member) << member.error().message;
    EXPECT_EQ(member->offset, kPrefixSize);
    EXPECT_EQ(member->length, size);
    EXPECT_EQ((size + suffix_size(size)) % kBlockSize, 0U);
  }
}

TEST(Tar, PlainUstarHeaderIsEnough) {
  EXPECT_EQ(refusal(header_of("00000001750")), "found at 512, 1000 bytes");
  EXPECT_EQ(refusal(header_of("       1750 ")), "found at 512, 1000 bytes");
}

TEST(Tar, SizeRecordWinsAmongOthersOverTheField) {
  EXPECT_EQ(refusal(with_pax("20 atime=1700000000\n13 size=1234\n")), "found at 1536, 1234 bytes");
  EXPECT_EQ(refusal(with_pax("20 atime=1700000000\n")), "found at 1536, 10 bytes");
  const std::string comment = "611 comment=" + std::string(598, 'x') + "\n";
  EXPECT_EQ(refusal(with_pax(comment + "12 size=777\n")), "found at 2048, 777 bytes");
}

TEST(Tar, RefusesMalformedRecords) {
  EXPECT_THAT(refusal(with_pax("99 size=1\n")), HasSubstr("pax header: the record"));
  EXPECT_THAT(refusal(with_pax("0 size=1\n")), HasSubstr("malformed"));
  EXPECT_THAT(refusal(with_pax("size=1\n")), HasSubstr("malformed"));
  EXPECT_THAT(refusal(with_pax("18446744073709551615 size=1\n")), HasSubstr("malformed"));
  EXPECT_THAT(refusal(with_pax("11 size=1x\n")), HasSubstr("'size=1x' is no size"));
  EXPECT_THAT(refusal(with_pax("29 size=99999999999999999999\n")), HasSubstr("is no size"));
}

TEST(Tar, RefusesWhatIsNotAWholeMember) {
  EXPECT_THAT(refusal(header_of("00000001750", '5')), HasSubstr("type '5'"));
  EXPECT_THAT(refusal(header_of("0000000175x")), HasSubstr("size '0000000175x'"));
  EXPECT_THAT(refusal(header_of("00000001750"), 1511), HasSubstr("cut off"));
  EXPECT_THAT(refusal(header_of("77777777777", 'x')), HasSubstr("more than 4096"));
  auto pax_only = header_of("00000000016", 'x');
  EXPECT_THAT(refusal(pax_only), HasSubstr("cut off"));
  pax_only.resize(2 * kBlockSize);
  EXPECT_THAT(refusal(pax_only), HasSubstr("malformed"));
}

TEST(Tar, AnyChangedByteOfAHeaderIsNoticed) {
  const auto good = header_of("00000001750");
  for (size_t i = 0; i < kBlockSize; ++i) {
    if (i >= 154 && i < 156) continue;  // padding of the checksum
    auto bad = good;
    bad[i] ^= std::byte{0x01};
    if (!looks_like_tar(bad)) continue;
    EXPECT_THAT(refusal(bad), HasSubstr("tar header")) << i;
  }
}

TEST(Tar, LooksLikeTarByItsMagicAlone) {
  EXPECT_TRUE(looks_like_tar(header_of("0")));
  EXPECT_TRUE(looks_like_tar(fixture("bad/tar-bad-checksum.tar")));
  EXPECT_FALSE(looks_like_tar(fixture("bad/good.zfile")));
  EXPECT_FALSE(looks_like_tar(std::vector<std::byte>(511)));
}

}  // namespace
}  // namespace obd::tar
