#include "core/format/zfile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "core/io/file.h"

namespace obd::zfile {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

using Bytes = std::array<std::byte, kHeaderSize>;

Bytes fixture_at(const std::string& name, uint64_t offset) {
  Bytes bytes;
  const auto file =
      posix_file_system().open(OBD_SOURCE_DIR "/test/fixtures/" + name, Access::read_only).value();
  EXPECT_TRUE(read_exactly(*file, bytes, offset));
  return bytes;
}

// The header of fixture 03, which has 225 blocks of 4 KiB.
Header good() { return decode_header(fixture_at("03-zfile-lz4-4k/layer.zfile", 0), "x").value(); }

constexpr uint64_t kGoodSize = 65596;

std::string refusal(const Header& header, int code = EINVAL, uint64_t limit = kGoodSize) {
  const auto checked = check_final(header, limit, "/a/b: zfile header");
  if (checked) return "accepted";
  EXPECT_EQ(checked.error().code, code);
  EXPECT_THAT(checked.error().message, StartsWith("/a/b: zfile header: "));
  return checked.error().message;
}

TEST(Zfile, DecodesWhatOverlaybdWrote) {
  const Header header = good();
  EXPECT_EQ(header.flags, 0x1BU);
  EXPECT_TRUE(header.is_header());
  EXPECT_TRUE(header.is_final());
  EXPECT_EQ(header.table_offset, 64184U);
  EXPECT_EQ(header.blocks, 225U);
  EXPECT_EQ(header.content_size, 919552U);
  EXPECT_EQ(header.table_checksum, 0xFB599767U);
  EXPECT_EQ(header.block_size, 4096U);
  EXPECT_EQ(header.algorithm, algorithm_of(Compression::lz4));
  EXPECT_TRUE(header.checksums);
  EXPECT_EQ(refusal(header), "accepted");
}

TEST(Zfile, EncodesByteForByteWhatOverlaybdWrote) {
  const std::vector<std::pair<std::string, uint64_t>> places = {
      {"03-zfile-lz4-4k/layer.zfile", 0},
      {"03-zfile-lz4-4k/layer.zfile", kGoodSize - 512},
      {"04-zfile-zstd-64k/layer.zfile", 0},
      {"14-zfile-noverify/layer.zfile", 0},
      {"14-zfile-noverify/layer.zfile", 30647 - 512}};
  for (const auto& [file, offset] : places) {
    const Bytes bytes = fixture_at(file, offset);
    EXPECT_EQ(encode_header(decode_header(bytes, "x").value()), bytes) << file << ' ' << offset;
  }
}

TEST(Zfile, AnyChangedBitOfAHeaderIsNoticed) {
  const Bytes bytes = fixture_at("03-zfile-lz4-4k/layer.zfile", 0);
  for (size_t i = 0; i < bytes.size() * 8; ++i) {
    if (i / 8 == 32 && i % 8 == 4) continue;  // the flag that says that there is a digest
    Bytes bad = bytes;
    bad[i / 8] ^= std::byte{1} << i % 8;
    // The struct size counts, too, although it means nothing.
    EXPECT_FALSE(decode_header(bad, "x")) << "bit " << i;
  }
}

TEST(Zfile, WithoutTheFlagTheDigestIsNotLookedAt) {
  const Bytes bytes = fixture_at("bad/zfile-nodigest.zfile", 0);
  EXPECT_TRUE(decode_header(bytes, "x"));
}

TEST(Zfile, RefusesEachFieldThatContradictsTheRest) {
  Header header = good();
  header.content_size += 4096;
  EXPECT_THAT(refusal(header), HasSubstr("index_size 225 is not the 226 blocks"));
  header = good();
  header.content_size = ~uint64_t{0};
  EXPECT_THAT(refusal(header), HasSubstr("original_file_size 18446744073709551615"));
  header = good();
  header.blocks = 224;
  EXPECT_THAT(refusal(header), HasSubstr("index_size 224"));
  for (const uint32_t size : {0U, 256U, 3000U, 4095U, 1U << 21, 1U << 31}) {
    header = good();
    header.block_size = size;
    EXPECT_THAT(refusal(header), HasSubstr(fmt::format("block_size {} ", size)));
  }
  for (const uint64_t offset : {uint64_t{0}, uint64_t{511}, kGoodSize - 899, ~uint64_t{0}}) {
    header = good();
    header.table_offset = offset;
    EXPECT_THAT(refusal(header), HasSubstr(fmt::format("index_offset {} ", offset)));
  }
  header = good();
  header.table_offset = kGoodSize - 900;
  EXPECT_EQ(refusal(header), "accepted");
}

TEST(Zfile, RefusesWhatItCannotRead) {
  Header header = good();
  header.algorithm = 0;
  EXPECT_THAT(refusal(header, ENOTSUP), HasSubstr("algorithm 0"));
  header = good();
  header.use_dictionary = true;
  EXPECT_THAT(refusal(header, ENOTSUP), HasSubstr("use_dict 1"));
  header = good();
  header.dictionary_size = 1;
  EXPECT_THAT(refusal(header, ENOTSUP), HasSubstr("dict_size 1"));
  header = good();
  header.flags |= kFlagTableCompressed;
  EXPECT_THAT(refusal(header, ENOTSUP), HasSubstr("flags 0x3b"));
}

TEST(Zfile, AlgorithmsHaveTheirNumbers) {
  EXPECT_EQ(algorithm_of(Compression::lz4), 1);
  EXPECT_EQ(algorithm_of(Compression::zstd), 2);
  EXPECT_EQ(compression_of(1), Compression::lz4);
  EXPECT_EQ(compression_of(2), Compression::zstd);
  EXPECT_EQ(compression_of(3), Compression::none);
}

}  // namespace
}  // namespace obd::zfile
