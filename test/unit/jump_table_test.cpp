#include "core/zfile/jump_table.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/format/zfile.h"
#include "test/support/random.h"

namespace obd {
namespace {

TEST(JumpTable, FindsEveryBlock) {
  for (uint32_t block_size = zfile::kMinBlockSize; block_size <= zfile::kMaxBlockSize;
       block_size *= 2) {
    test::Random random(block_size);
    const uint64_t most = zfile::max_stored_size(block_size);
    JumpTable table(block_size, 512);
    std::vector<uint32_t> lengths;
    for (int i = 0; i < 1000; ++i) {
      const uint64_t length = random.percent(10) ? most : random.between(1, most);
      lengths.push_back(static_cast<uint32_t>(length));
      table.push_back(lengths.back());
    }
    table.shrink();
    uint64_t offset = 512;
    for (size_t i = 0; i < lengths.size(); ++i) {
      const ByteRange found = table.find(i);
      ASSERT_EQ(found.offset, offset) << "block " << i << " of " << block_size;
      ASSERT_EQ(found.length, lengths[i]) << "block " << i << " of " << block_size;
      offset += lengths[i];
    }
    EXPECT_EQ(table.end(), offset);
  }
}

// 1 TiB in blocks of 4 KiB has 2^28 of them; here a thousandth of that.
TEST(JumpTable, TakesAtMostThreeBytesABlock) {
  constexpr uint64_t kBlocks = 1 << 18;
  for (const uint32_t block_size : {4096U, 65536U, 1U << 20}) {
    JumpTable table(block_size, 512);
    for (uint64_t i = 0; i < kBlocks; ++i) table.push_back(1);
    table.shrink();
    EXPECT_LE(table.memory(), 3 * kBlocks + 8) << block_size;
  }
}

}  // namespace
}  // namespace obd
