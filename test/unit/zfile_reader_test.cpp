#include "core/zfile/zfile_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "test/support/memory_file_system.h"
#include "test/unit/zfile_blobs.h"

namespace obd {
namespace {

using test::Bytes;
using ::testing::HasSubstr;

constexpr auto kPath = "/d/layer";

class ZfileReaderTest : public ::testing::Test {
 protected:
  std::unique_ptr<Blob> open(std::shared_ptr<BlockCache> cache = nullptr) {
    return test::expect_value(open_blob(fs_, kPath, std::move(cache)));
  }
  Error open_error() {
    const auto blob = open_blob(fs_, kPath, nullptr);
    return blob ? Error{0, "opened"} : blob.error();
  }
  void patch(std::span<const std::byte> bytes, uint64_t offset) {
    const auto file = test::expect_value(fs_.open(kPath, Access::read_write));
    test::expect_ok(file->write_at(bytes, offset));
  }
  zfile::Header header_at(uint64_t offset) {
    std::array<std::byte, zfile::kHeaderSize> bytes;
    const auto file = test::expect_value(fs_.open(kPath, Access::read_only));
    test::expect_ok(read_exactly(*file, bytes, offset));
    return test::expect_value(zfile::decode_header(bytes, "x"));
  }
  uint64_t file_size() {
    return test::expect_value(fs_.open(kPath, Access::read_only))->info()->size;
  }

  test::MemoryFileSystem fs_;
};

TEST_F(ZfileReaderTest, ReadsWhatWasWrittenAtEveryBlockSize) {
  for (const Compression compression : {Compression::lz4, Compression::zstd}) {
    for (uint32_t block = zfile::kMinBlockSize; block <= zfile::kMaxBlockSize; block *= 2) {
      for (const size_t size : {size_t{0}, size_t{1}, size_t{block} - 1, size_t{block},
                                size_t{block} + 1, 2 * size_t{block} + 12345}) {
        SCOPED_TRACE(fmt::format("{} {} {}", name_of(compression), block, size));
        const Bytes content = test::mixed_content(block + size, size);
        test::write_blob(fs_, kPath, content,
                         {.compression = compression, .block_size = block, .threads = 1});
        const auto blob = open();
        ASSERT_EQ(blob->size(), size);
        ASSERT_TRUE(test::read_blob(*blob) == content);
        EXPECT_EQ(blob->container().block_size, block);
        EXPECT_EQ(blob->container().blocks, (size + block - 1) / block);
      }
    }
  }
}

TEST_F(ZfileReaderTest, RandomReadsReadAsTheContentDoes) {
  constexpr size_t kSize = 300'001;
  test::for_each_seed(12, [&](uint64_t seed) {
    test::Random random(seed);
    const Bytes content = test::mixed_content(seed, kSize);
    test::write_blob(fs_, kPath, content,
                     {.compression = random.percent(50) ? Compression::lz4 : Compression::zstd,
                      .block_size = zfile::kMinBlockSize << random.below(9),
                      .tar = random.percent(50),
                      .threads = 1});
    // No cache, one that thrashes, one that holds everything.
    const uint64_t capacity = std::array<uint64_t, 3>{0, 50'000, 1 << 20}[random.below(3)];
    const auto blob = open(std::make_shared<BlockCache>(capacity));
    for (int i = 0; i < 60; ++i) {
      const uint64_t offset = random.below(kSize + 1000);
      const size_t length = random.below(random.percent(80) ? 10'000 : 250'000);
      const size_t expected =
          offset >= kSize ? 0 : std::min<size_t>(length, kSize - static_cast<size_t>(offset));
      const Bytes got = test::read_range(*blob, offset, length);
      test::require(got.size() == expected, "wrong length");
      test::require(expected == 0 || std::memcmp(got.data(), &content[offset], expected) == 0,
                    fmt::format("wrong content: {} bytes at {}", length, offset));
    }
  });
}

TEST_F(ZfileReaderTest, ManyThreadsReadThroughOneSmallCache) {
  const Bytes content = test::mixed_content(1, 400'000);
  test::write_blob(fs_, kPath, content, {.compression = Compression::zstd, .block_size = 16384});
  const auto cache = std::make_shared<BlockCache>(60'000);
  const auto first = open(cache);
  const auto second = open(cache);
  test::run_threads(4, [&](size_t thread) {
    test::Random random(thread);
    for (int i = 0; i < 300; ++i) {
      const uint64_t offset = random.below(content.size() - 5000);
      const Bytes got = test::read_range(thread % 2 == 0 ? *first : *second, offset, 5000);
      test::require(std::memcmp(got.data(), &content[offset], 5000) == 0, "wrong content");
    }
  });
}

TEST_F(ZfileReaderTest, SmallReadsDecompressABlockOnceAndScansLeaveTheCacheAlone) {
  const Bytes content = test::mixed_content(1, 1 << 20);
  test::write_blob(fs_, kPath, content, {.compression = Compression::lz4, .block_size = 65536});
  const auto cache = std::make_shared<BlockCache>(4 << 20);
  const auto blob = open(cache);
  (void)test::read_blob(*blob);
  EXPECT_EQ(cache->stats().bytes, 0U);
  for (uint64_t offset = 0; offset < 65536; offset += 4096)
    (void)test::read_range(*blob, offset, 4096);
  EXPECT_EQ(cache->stats().misses, 1U);
  EXPECT_EQ(cache->stats().hits, 15U);
}

TEST_F(ZfileReaderTest, FinalValuesCanBeInTheTrailerAlone) {
  const Bytes content = test::mixed_content(3, 100'000);
  test::write_blob(fs_, kPath, content, {.compression = Compression::lz4});
  zfile::Header header;
  header.flags = zfile::kFlagHeader | zfile::kFlagData | zfile::kFlagDigest;
  patch(zfile::encode_header(header), 0);
  EXPECT_TRUE(test::read_blob(*open()) == content);

  // Now the trailer is what counts.
  const uint64_t trailer_at = file_size() - zfile::kHeaderSize;
  const zfile::Header trailer = header_at(trailer_at);
  zfile::Header bad = trailer;
  bad.flags &= ~uint64_t{zfile::kFlagSealed};
  patch(zfile::encode_header(bad), trailer_at);
  EXPECT_THAT(open_error().message, HasSubstr("zfile trailer: flags 0x12"));
  bad = trailer;
  bad.blocks += 1;
  patch(zfile::encode_header(bad), trailer_at);
  EXPECT_THAT(open_error().message, HasSubstr("zfile trailer: index_size 26"));
  bad = trailer;
  bad.table_offset += 4;  // the table would end in the trailer
  patch(zfile::encode_header(bad), trailer_at);
  EXPECT_THAT(open_error().message, HasSubstr("zfile trailer: index_offset"));
  const std::array<std::byte, 1> wrong = {std::byte{0xFF}};
  patch(zfile::encode_header(trailer), trailer_at);
  patch(wrong, trailer_at + 300);
  EXPECT_THAT(open_error().message, HasSubstr("zfile trailer: digest"));
}

TEST_F(ZfileReaderTest, EveryByteIsVerified) {
  const Bytes content = test::mixed_content(4, 20'000);
  Bytes out(content.size());
  for (const Compression compression : {Compression::lz4, Compression::zstd}) {
    test::write_blob(fs_, kPath, content, {.compression = compression});
    const Bytes good = test::file_bytes(fs_, kPath);
    // Without its magic number it is no ZFile, which LSMT's reader finds out; the trailer is not
    // looked at.
    for (size_t i = 24; i < good.size() - zfile::kHeaderSize; i += 7) {
      const std::array<std::byte, 1> bad = {good[i] ^ std::byte{0x40}};
      patch(bad, i);
      const auto blob = open_blob(fs_, kPath, nullptr);
      const bool noticed = !blob || !(*blob)->read_at(out, 0);
      EXPECT_TRUE(noticed) << "byte " << i;
      patch(std::span(good).subspan(i, 1), i);
    }
  }
}

TEST_F(ZfileReaderTest, DamagedBlockIsNamedAndTheOthersAreServed) {
  const Bytes content = test::random_content(5, 3 * 4096);
  test::write_blob(fs_, kPath, content, {.compression = Compression::lz4});
  const std::array<std::byte, 1> flipped = {~test::file_bytes(fs_, kPath)[512 + 4200]};
  patch(flipped, 512 + 4200);
  for (const uint64_t capacity : {uint64_t{0}, uint64_t{1} << 20}) {
    const auto blob = open(std::make_shared<BlockCache>(capacity));
    Bytes out(10);
    for (int twice = 0; twice < 2; ++twice) {
      const auto read = blob->read_at(out, 5000);
      ASSERT_FALSE(read);
      EXPECT_EQ(read.error().code, EBADMSG);
      EXPECT_THAT(read.error().message,
                  HasSubstr("/d/layer: zfile block 1 (bytes 4096 to 8192 of the layer): checksum"));
    }
    EXPECT_EQ(test::read_range(*blob, 4000, 96),
              Bytes(content.begin() + 4000, content.begin() + 4096));
    EXPECT_EQ(test::read_range(*blob, 8192, 100),
              Bytes(content.begin() + 8192, content.begin() + 8292));
  }
}

TEST_F(ZfileReaderTest, FileThatShrinksLaterIsAnError) {
  test::write_blob(fs_, kPath, test::random_content(6, 1 << 16), {.compression = Compression::lz4});
  const auto blob = open();
  test::expect_ok(test::expect_value(fs_.open(kPath, Access::read_write))->truncate(1000));
  Bytes out(1 << 16);
  const auto read = blob->read_at(out, 0);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, EIO);
  EXPECT_THAT(read.error().message, HasSubstr("ends early"));
}

TEST_F(ZfileReaderTest, TableThatPointsIntoItselfIsRefused) {
  test::write_blob(fs_, kPath, test::random_content(7, 8192), {.compression = Compression::lz4});
  zfile::Header header = header_at(0);
  const uint64_t table_at = header.table_offset;
  const std::array<std::byte, 8> table = {std::byte{0x40}, std::byte{0x20}, {}, {},
                                          std::byte{0x40}, std::byte{0x20}, {}, {}};
  patch(table, table_at);
  header.table_checksum = zfile::table_checksum(0, table);
  patch(zfile::encode_header(header), 0);
  EXPECT_THAT(open_error().message, HasSubstr("the blocks end at byte 17024, behind index_offset"));
}

// The file would have to be as large; this one claims to be, and is a hole.
TEST_F(ZfileReaderTest, MemoryFollowsTheFileNotItsClaims) {
  zfile::Header header;
  header.flags = zfile::kFlagHeader | zfile::kFlagData | zfile::kFlagFinal;
  header.table_offset = zfile::kHeaderSize;
  header.block_size = 4096;
  header.algorithm = 1;
  header.content_size = uint64_t{1} << 60;
  header.blocks = header.content_size / header.block_size;
  const auto file = test::expect_value(fs_.create(kPath, 0600));
  test::expect_ok(file->write_at(zfile::encode_header(header), 0));
  test::expect_ok(file->truncate(header.table_offset + header.blocks * 4));
  EXPECT_THAT(open_error().message, HasSubstr("entry 0: a length of 0"));
}

}  // namespace
}  // namespace obd
