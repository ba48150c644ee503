#include "tools/obd/data_runs.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/base/units.h"
#include "test/unit/scratch_folder.h"

namespace obd::tool {
namespace {

struct Piece {
  uint64_t offset;
  uint64_t length;
  bool operator==(const Piece&) const = default;
};

std::vector<Piece> pieces_of(uint64_t offset, std::span<const std::byte> data) {
  std::vector<Piece> pieces;
  EXPECT_TRUE(skip_zero_blocks(offset, data, [&](uint64_t at, std::span<const std::byte> part) {
    EXPECT_EQ(part.data(), data.data() + (at - offset));
    pieces.push_back({at, part.size()});
    return Result<void>();
  }));
  return pieces;
}

TEST(SkipZeroBlocks, GivesNothingForZerosAndEverythingForData) {
  std::vector<std::byte> data(4 * kBlockSize);
  EXPECT_TRUE(pieces_of(0, data).empty());
  EXPECT_TRUE(pieces_of(0, std::span(data).first(0)).empty());
  EXPECT_TRUE(pieces_of(512, std::span(data).first(512)).empty());
  std::ranges::fill(data, std::byte{1});
  EXPECT_EQ(pieces_of(0, data), (std::vector<Piece>{{0, 4 * kBlockSize}}));
}

TEST(SkipZeroBlocks, KeepsBlocksWithAnyByteWhole) {
  std::vector<std::byte> data(5 * kBlockSize);
  data[kBlockSize] = std::byte{1};          // first byte of block 1
  data[3 * kBlockSize - 1] = std::byte{1};  // last byte of block 2
  data[4 * kBlockSize + 7] = std::byte{1};  // within block 4
  EXPECT_EQ(pieces_of(0, data),
            (std::vector<Piece>{{kBlockSize, 2 * kBlockSize}, {4 * kBlockSize, kBlockSize}}));
}

TEST(SkipZeroBlocks, CutsAtBlocksOfTheDiskNotOfTheBuffer) {
  std::vector<std::byte> data(2 * kBlockSize);
  data[0] = std::byte{1};
  // The buffer starts 512 bytes before a block's end, and ends within another.
  const uint64_t offset = 10 * kBlockSize - 512;
  EXPECT_EQ(pieces_of(offset, data), (std::vector<Piece>{{offset, 512}}));
}

TEST(SkipZeroBlocks, StopsAtTheSinksError) {
  const std::vector<std::byte> data(2 * kBlockSize, std::byte{1});
  const auto result = skip_zero_blocks(
      0, data,
      [](uint64_t, std::span<const std::byte>) -> Result<void> { return fail(ENOSPC, "full"); });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ENOSPC);
}

TEST(DataRuns, CopiesASparseFileWhoseSizeIsNoMultipleOfASector) {
  const test::ScratchFolder folder;
  const auto file = posix_file_system().create(folder / "raw", 0644).value();
  const std::vector<std::byte> ones(100, std::byte{1});
  const uint64_t size = (uint64_t{64} << 20) + 100;
  ASSERT_TRUE(file->write_at(ones, 5 * kBlockSize + 1000));
  ASSERT_TRUE(file->write_at(ones, size - 100));

  const auto runs = data_runs(*file).value();
  ASSERT_GE(runs.size(), 2U);
  EXPECT_EQ(runs.back().offset + runs.back().length, align_up(size, kSectorSize));

  std::vector<Piece> pieces;
  uint64_t sum = 0;
  ASSERT_TRUE(copy_runs(*file, runs, "", [&](uint64_t at, std::span<const std::byte> part) {
    pieces.push_back({at, part.size()});
    for (const std::byte byte : part) sum += static_cast<uint64_t>(byte);
    return Result<void>();
  }));
  EXPECT_EQ(pieces,
            (std::vector<Piece>{{5 * kBlockSize, kBlockSize}, {uint64_t{64} << 20, kSectorSize}}));
  EXPECT_EQ(sum, 200U);
}

TEST(DataRuns, OfAFileOfHolesAreNone) {
  const test::ScratchFolder folder;
  const auto file = posix_file_system().create(folder / "raw", 0644).value();
  EXPECT_TRUE(data_runs(*file).value().empty());
  ASSERT_TRUE(file->truncate(uint64_t{1} << 30));
  std::vector<Piece> pieces;
  ASSERT_TRUE(copy_runs(*file, data_runs(*file).value(), "",
                        [&](uint64_t at, std::span<const std::byte> part) {
                          pieces.push_back({at, part.size()});
                          return Result<void>();
                        }));
  EXPECT_TRUE(pieces.empty());
}

}  // namespace
}  // namespace obd::tool
