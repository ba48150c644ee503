#include "core/layer/sealed_layer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cerrno>

#include "core/layer/layer_writer.h"
#include "test/support/memory_file_system.h"
#include "test/support/seeded.h"
#include "test/unit/zfile_blobs.h"

namespace obd::test {
namespace {

using ::testing::HasSubstr;

constexpr auto kPath = "/layer";
constexpr uint64_t kMany = 2'000'000;

// A layer whose index is the given entries, `repeated` times.
void write_layer(FileSystem& fs, const BlobOptions& options, const lsmt::Entry& entry,
                 uint64_t repeated) {
  const auto blob = expect_value(BlobWriter::create(fs, kPath, options, true));
  lsmt::Header header;
  header.flags = lsmt::kFlagHeader | lsmt::kFlagData | lsmt::kFlagSealed;
  header.virtual_size = 1 << 20;
  expect_ok(blob->append(lsmt::encode_header(header)));
  std::array<std::byte, lsmt::kEntrySize> bytes;
  lsmt::encode_entry(entry, bytes);
  Bytes piece;
  for (uint64_t i = 0; i < 32; ++i) piece.insert(piece.end(), bytes.begin(), bytes.end());
  require(repeated % 32 == 0, "the index ends within a sector");
  for (uint64_t i = 0; i < repeated / 32; ++i) expect_ok(blob->append(piece));
  header.flags = lsmt::kFlagData | lsmt::kFlagSealed;
  header.index_offset = lsmt::kHeaderSize;
  header.index_size = repeated;
  expect_ok(blob->append(lsmt::encode_header(header)));
  expect_ok(blob->finish());
}

BlobOptions compressed(Compression compression) {
  return {.compression = compression, .block_size = 1 << 20, .threads = 1};
}

TEST(SealedLayer, PaddingThatASmallFileExpandsToIsRefused) {
  for (const Compression compression : {Compression::lz4, Compression::zstd}) {
    MemoryFileSystem fs;
    write_layer(fs, compressed(compression), lsmt::Entry{}, kMany);
    const auto file = expect_value(fs.open(kPath, Access::read_only));
    require(expect_value(file->info()).size < 200'000, "the file is not small");
    const auto layer = SealedLayer::open(fs, kPath);
    ASSERT_FALSE(layer);
    EXPECT_EQ(layer.error().code, EINVAL);
    EXPECT_THAT(layer.error().message, HasSubstr("index_size 2000000 is more entries than"));
  }
}

TEST(SealedLayer, PaddingThatIsThereIsDropped) {
  MemoryFileSystem fs;
  write_layer(fs, {}, lsmt::Entry{}, kMany);
  EXPECT_EQ(expect_value(SealedLayer::open(fs, kPath))->extent_count(), 0u);
  write_layer(fs, compressed(Compression::zstd), lsmt::Entry{}, 65536);
  EXPECT_EQ(expect_value(SealedLayer::open(fs, kPath))->extent_count(), 0u);
}

// So no layer that anybody writes is taken for such a one.
TEST(SealedLayer, TheMostRegularIndexOpensHoweverItIsCompressed) {
  for (const uint32_t block_size : {4096U, 65536U, 1U << 20}) {
    MemoryFileSystem fs;
    LayerOptions options;
    options.virtual_size = uint64_t{1} << 34;
    options.blob = {.compression = Compression::zstd, .block_size = block_size, .threads = 1};
    const auto writer = expect_value(LayerWriter::create(fs, kPath, options));
    constexpr uint64_t kEntries = 300'000;
    for (uint64_t i = 0; i < kEntries; ++i) {
      expect_ok(writer->append_zero(Sectors(16 * i), Sectors(8)));
    }
    expect_ok(writer->finish());
    EXPECT_EQ(expect_value(SealedLayer::open(fs, kPath))->extent_count(), kEntries);
  }
}

}  // namespace
}  // namespace obd::test
