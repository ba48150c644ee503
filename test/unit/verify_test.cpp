#include "core/image/verify.h"

#include <gtest/gtest.h>

#include "core/format/lsmt.h"
#include "test/support/memory_file_system.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

// A layer that was sealed from a sparse one of a pebibyte, with data in its last block alone.
TEST(Verify, DoesNotReadHoles) {
  MemoryFileSystem fs;
  const auto file = expect_value(fs.create("/layer", 0644));
  lsmt::Header header;
  header.flags = lsmt::kFlagHeader | lsmt::kFlagData | lsmt::kFlagSparse;
  header.virtual_size = uint64_t{1} << 50;
  expect_ok(file->write_at(lsmt::encode_header(header), 0));
  const uint64_t end = lsmt::kHeaderSize + header.virtual_size;
  const std::vector<std::byte> block(kBlockSize, std::byte{7});
  expect_ok(file->write_at(block, end - kBlockSize));
  lsmt::Entry entry;
  entry.offset = Sectors::floor(header.virtual_size - kBlockSize);
  entry.length = Sectors::floor(kBlockSize);
  entry.physical = entry.offset + lsmt::kFirstDataSector;
  std::vector<std::byte> index(kSectorSize);
  lsmt::encode_entry(entry, std::span(index).first<lsmt::kEntrySize>());
  expect_ok(file->write_at(index, end));
  header.flags = lsmt::kFlagData | lsmt::kFlagSealed | lsmt::kFlagSparse;
  header.index_offset = end;
  header.index_size = 1;
  expect_ok(file->write_at(lsmt::encode_header(header), end + index.size()));

  uint64_t last_done = 0;
  const auto report = [&](std::string_view, uint64_t done, uint64_t total) -> Result<void> {
    require(done >= last_done && done <= total, "progress goes back");
    last_done = done;
    return {};
  };
  const VerifyReport verified = expect_value(verify_image_or_layer(fs, "/layer", {}, report));
  EXPECT_TRUE(verified.check.findings.empty());
  EXPECT_EQ(verified.bytes, expect_value(file->info()).size);
  const uint64_t reads = fs.count(Operation::read);
  EXPECT_LT(reads, 100u);

  // What is there is read, and last of all.
  fs.inject({.operation = Operation::read, .nth = reads, .sticky = true});
  const VerifyReport failed =
      expect_value(verify_image_or_layer(fs, "/layer", {.threads = 1}, nullptr));
  EXPECT_FALSE(failed.check.complete);
}

}  // namespace
}  // namespace obd::test
