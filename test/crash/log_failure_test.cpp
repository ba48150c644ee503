// The index log itself meets a failing host.

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "core/image/image.h"
#include "test/support/memory_file_system.h"
#include "test/support/random.h"
#include "test/support/seeded.h"
#include "test/support/stack_builder.h"

namespace obd::test {
namespace {

constexpr uint64_t kRecordsPerBlock = kBlockSize / lsmt::kEntrySize;

class LogFailure : public testing::Test {
 protected:
  void open_image(UpperKind kind) {
    StackOptions options;
    options.size = uint64_t{1} << 20;
    options.kind = kind;
    stack_ = build_stack(fs_, random_, options);
    expected_ = stack_.content;
    reopen();
  }

  void reopen() {
    image_.reset();  // as if the server had been killed
    image_ = expect_value(Image::open(fs_, stack_.config, {}));
  }

  // Writes random bytes; what should then be there is in expected_.
  Result<void> write(uint64_t offset, uint64_t length) {
    const auto part = std::span(expected_).subspan(offset, length);
    random_.fill(part);
    return image_->write(part, offset);
  }

  std::vector<std::byte> read_all() {
    std::vector<std::byte> content(image_->size());
    expect_ok(image_->read(content, 0));
    return content;
  }

  // Writes single sectors, all over the disk, until the log fills its last block.
  void fill_block_of_log() {
    uint64_t sector = 0;
    while (log_records() % kRecordsPerBlock != 0) {
      expect_ok(write(sector * kBlockSize, kSectorSize));
      ++sector;
    }
  }

  uint64_t log_records() { return expect_value(image_->layers()).back().log_records; }

  void let_sync_fail_on_a_full_host() {
    fs_.set_space_limit(fs_.allocated());
    Fault fault;
    fault.operation = Operation::sync;
    fault.path_suffix = "data";
    fs_.inject(fault);
    expect_error(image_->flush(), EIO);
    require(fs_.faults_hit() == 1, "no sync failed");
    fs_.clear_faults();
    expect_error(write(0, kSectorSize), EROFS);
  }

  Random random_{1};
  MemoryFileSystem fs_{"first-boot"};
  Stack stack_;
  std::unique_ptr<Image> image_;
  std::vector<std::byte> expected_;
};

// The record stands in the log although its write was reported as failed, so the next open believes
// it: the bytes that it names must still be there.
TEST_F(LogFailure, ARecordThatCannotBeCutOffKeepsItsPayload) {
  open_image(UpperKind::append);
  expect_ok(write(0, 4 * kBlockSize));
  const std::vector<std::byte> before = expected_;

  for (const Operation operation : {Operation::write, Operation::truncate}) {
    Fault fault;
    fault.operation = operation;
    fault.sticky = true;
    fault.path_suffix = "index";
    fault.prefix = operation == Operation::write ? lsmt::kEntrySize : 0;
    fs_.inject(fault);
  }
  expect_error(write(kBlockSize, kBlockSize), EIO);
  fs_.clear_faults();
  EXPECT_EQ(read_all(), before);
  const std::vector<std::byte> after = expected_;
  expect_error(write(0, kSectorSize), EROFS);

  reopen();
  EXPECT_EQ(read_all(), after);
}

TEST_F(LogFailure, AFullHostStillWritesDownThatASyncFailed) {
  open_image(UpperKind::append);
  expect_ok(write(0, 16 * kBlockSize));
  expect_ok(image_->flush());
  const std::vector<std::byte> flushed = expected_;
  fill_block_of_log();
  let_sync_fail_on_a_full_host();

  fs_.set_space_limit(std::nullopt);
  reopen();
  EXPECT_EQ(read_all(), flushed);
}

// Nothing was recorded since the last marker, so there is no record that may be given up for the
// note that a sync failed: the marker vouches for all that was flushed.
TEST_F(LogFailure, AFullHostKeepsTheMarkerThatVouchesForTheRest) {
  open_image(UpperKind::sparse);
  expect_ok(write(0, 200 * kBlockSize));
  expect_ok(image_->flush());
  // In turn, either of them needs a record.
  for (bool zero = true; log_records() % kRecordsPerBlock != kRecordsPerBlock - 1; zero = !zero) {
    const uint64_t last_block = expected_.size() - kBlockSize;
    expect_ok(zero ? image_->zero(last_block, kBlockSize) : write(last_block, kBlockSize));
    if (zero) std::fill(expected_.end() - kBlockSize, expected_.end(), std::byte{0});
  }
  expect_ok(image_->flush());
  require(log_records() % kRecordsPerBlock == 0, "the marker is not the last of its block");
  const std::vector<std::byte> flushed = expected_;
  expect_ok(write(0, kBlockSize));  // in place: needs no record
  let_sync_fail_on_a_full_host();

  fs_.set_space_limit(std::nullopt);
  fs_.set_boot_id("second-boot");
  reopen();
  const auto found = read_all();
  EXPECT_TRUE(std::equal(found.begin() + kBlockSize, found.end(), flushed.begin() + kBlockSize));
}

}  // namespace
}  // namespace obd::test
