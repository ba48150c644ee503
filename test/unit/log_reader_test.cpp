#include "core/layer/log_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/checksum.h"
#include "core/image/image.h"
#include "core/layer/index_log.h"
#include "test/support/memory_file_system.h"
#include "test/support/seeded.h"
#include "test/support/stack_builder.h"

namespace obd::test {
namespace {

using lsmt::MarkerKind;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr uint64_t kBoot = 1;
constexpr uint64_t kOtherBoot = 2;
constexpr uint64_t kUpdate = 0xABCDEF;

// A log of one session.
class LogReader : public testing::Test {
 protected:
  LogReader() {
    auto file = expect_value(fs_.create("/log", 0644));
    lsmt::Header header;
    header.flags = lsmt::kFlagHeader;
    header.index_offset = lsmt::kHeaderSize;
    expect_ok(file->write_at(lsmt::encode_header(header), 0));
    log_ = std::make_unique<IndexLog>(std::move(file), IndexLog::Position{});
    expect_ok(log_->append_session(kBoot));
  }

  void commit() { expect_ok(log_->append_marker(MarkerKind::commit, log_->position())); }

  LogScan read(uint64_t boot, const std::string& path = "/log") {
    const auto file = expect_value(fs_.open(path, Access::read_only));
    LogScan scan = expect_value(scan_log(*file, boot));
    LiveIndex index;
    const LogBounds bounds{.data_size = 1 << 20, .disk_end = Sectors(1000)};
    expect_ok(replay_log(*file, bounds, scan, index));
    return scan;
  }

  void append_mapping() {
    const lsmt::Entry entry{.offset = Sectors(8), .length = Sectors(8), .physical = Sectors(8)};
    expect_ok(log_->append(std::span(&entry, 1)));
  }

  [[nodiscard]] uint64_t log_size() const { return expect_value(log_->file().info()).size; }

  // Goes on with the log behind `bytes` of nothing.
  void leave_hole(uint64_t bytes) {
    auto position = log_->position();
    {
      const auto file = expect_value(fs_.open("/log", Access::read_write));
      expect_ok(file->truncate(lsmt::kHeaderSize + position.records * lsmt::kEntrySize));
    }
    position.records += bytes / lsmt::kEntrySize;
    position.crc = crc32c_of_zeros(position.crc, bytes);
    log_.reset();
    log_ = std::make_unique<IndexLog>(expect_value(fs_.open("/log", Access::read_write)), position);
  }

  void lengthen(uint64_t bytes) {
    const auto file = expect_value(fs_.open("/log", Access::read_write));
    expect_ok(file->truncate(log_size() + bytes));
  }

  MemoryFileSystem fs_;
  std::unique_ptr<IndexLog> log_;
};

// The suite's name tells what its tests are about.
using UpdateMarks = LogReader;
using HolesInALog = LogReader;

constexpr uint64_t kPebibyte = uint64_t{1} << 50;

// The suite's name tells what its tests are about.
using PaddingInALog = LogReader;

TEST_F(PaddingInALog, FillsItsLastBlock) {
  append_mapping();
  EXPECT_EQ(log_size(), lsmt::kHeaderSize + kBlockSize);
  const LogScan scan = read(kBoot);
  EXPECT_EQ(scan.whole_records, 2u);
  EXPECT_EQ(scan.trusted_records, 2u);
  EXPECT_EQ(scan.trusted_crc, log_->position().crc);
  EXPECT_FALSE(scan.must_rewrite);
  EXPECT_TRUE(scan.warnings.empty());
}

TEST_F(PaddingInALog, IsReplacedByWhatComesNext) {
  // Before, in, and behind the first block, whole and in pieces.
  const std::vector<lsmt::Entry> entries(
      200, {.offset = Sectors(8), .length = Sectors(8), .physical = Sectors(8)});
  for (int i = 0; i < 3; ++i) {
    append_mapping();
    expect_ok(log_->append(entries));
    commit();
    const LogScan scan = read(kOtherBoot);
    EXPECT_EQ(scan.whole_records, log_->position().records);
    EXPECT_EQ(scan.trusted_records, log_->position().records - 1);  // without the marker itself
    EXPECT_EQ(log_size() % kBlockSize, 0u);
  }
  // The same when another process goes on.
  auto file = expect_value(fs_.open("/log", Access::read_write));
  log_ = std::make_unique<IndexLog>(std::move(file), log_->position());
  append_mapping();
  EXPECT_EQ(read(kBoot).whole_records, log_->position().records);
}

TEST_F(PaddingInALog, IsCutOffWhenItIsClosed) {
  append_mapping();
  expect_ok(log_->append_marker(MarkerKind::close, log_->position()));
  EXPECT_EQ(log_size(), lsmt::kHeaderSize + 3 * lsmt::kEntrySize);
  EXPECT_TRUE(read(kOtherBoot).clean);
}

TEST_F(PaddingInALog, MayFollowTheCloseMarker) {
  append_mapping();
  expect_ok(log_->append_marker(MarkerKind::close, log_->position()));
  const uint64_t end = log_size();
  {
    const auto file = expect_value(fs_.open("/log", Access::read_write));
    std::array<std::byte, lsmt::kEntrySize> padding{};
    lsmt::encode_entry(lsmt::kPadding, padding);
    for (uint64_t at = end; at < end + 2 * kBlockSize; at += padding.size()) {
      expect_ok(file->write_at(padding, at));
    }
  }
  EXPECT_TRUE(read(kOtherBoot).clean);
}

TEST_F(HolesInALog, AreNotReadAtTheEnd) {
  append_mapping();
  commit();
  const uint64_t records = log_->position().records;
  lengthen(kPebibyte);
  for (const uint64_t boot : {kBoot, kOtherBoot}) {
    const LogScan scan = read(boot);
    EXPECT_LT(scan.whole_records, records + kBlockSize / lsmt::kEntrySize);
    EXPECT_GE(scan.trusted_records, records - 1);  // without the marker itself
    EXPECT_EQ(scan.changes, 1u);
    EXPECT_TRUE(scan.must_rewrite);
    EXPECT_THAT(scan.warnings, Contains(HasSubstr("are a hole in the file")));
    EXPECT_TRUE(scan.losses.empty());
  }
}

TEST_F(HolesInALog, MakeAClosedLogOneThatIsWrittenAnew) {
  append_mapping();
  expect_ok(log_->append_marker(MarkerKind::close, log_->position()));
  EXPECT_TRUE(read(kOtherBoot).clean);
  lengthen(kPebibyte);
  const LogScan scan = read(kOtherBoot);
  EXPECT_FALSE(scan.clean);
  EXPECT_TRUE(scan.must_rewrite);
  EXPECT_EQ(scan.changes, 1u);
}

TEST_F(HolesInALog, AreSteppedOverWithin) {
  append_mapping();
  leave_hole(kPebibyte);
  append_mapping();
  commit();
  append_mapping();
  const uint64_t records = log_->position().records;
  const LogScan here = read(kBoot);
  EXPECT_EQ(here.trusted_records, records);
  EXPECT_EQ(here.changes, 3u);
  EXPECT_EQ(here.trusted_crc, log_->position().crc);
  EXPECT_FALSE(here.must_rewrite);
  const LogScan elsewhere = read(kOtherBoot);
  EXPECT_EQ(elsewhere.trusted_records, records - 2);  // without the marker itself
  EXPECT_EQ(elsewhere.changes, 2u);
}

TEST_F(HolesInALog, AreWhatZerosAre) {
  append_mapping();
  leave_hole(16 * kBlockSize);
  append_mapping();
  commit();
  const LogScan hole = read(kOtherBoot);
  // The same with every byte of it there.
  const auto copy = expect_value(fs_.create("/copy", 0644));
  std::vector<std::byte> bytes(log_size());
  expect_value(log_->file().read_at(bytes, 0));
  expect_ok(copy->write_at(bytes, 0));
  const LogScan zeros = read(kOtherBoot, "/copy");
  EXPECT_EQ(hole.trusted_records, zeros.trusted_records);
  EXPECT_EQ(hole.trusted_crc, zeros.trusted_crc);
  EXPECT_EQ(hole.changes, zeros.changes);
  ASSERT_EQ(hole.warnings.size(), zeros.warnings.size());
  for (size_t i = 0; i < hole.warnings.size(); ++i) {
    EXPECT_EQ(hole.warnings[i].substr(4), zeros.warnings[i].substr(5));  // behind the path
  }
}

TEST(HoleAtALogsEnd, IsGoneAfterTheFirstWrite) {
  for (const UpperKind kind : {UpperKind::append, UpperKind::sparse}) {
    MemoryFileSystem fs;
    Random random(1);
    const Stack stack = build_stack(fs, random, {.size = 1 << 20, .lowers = 1, .kind = kind});
    const std::vector<std::byte> data(kBlockSize, std::byte{7});
    const auto open = [&] { return expect_value(Image::open(fs, stack.config, {})); };
    const auto log = [&] {
      return expect_value(fs.open(stack.config.upper->index, Access::read_write));
    };
    expect_ok(open()->write(data, 0));
    expect_ok(log()->truncate(kPebibyte));
    expect_ok(open()->write(data, kBlockSize));
    EXPECT_LT(expect_value(log()->info()).size, 3 * kBlockSize);
    std::vector<std::byte> found(2 * kBlockSize);
    expect_ok(open()->read(found, 0));
    EXPECT_EQ(found, std::vector<std::byte>(2 * kBlockSize, std::byte{7}));
  }
}

TEST_F(UpdateMarks, PendFromTheFirstToTheSecond) {
  EXPECT_EQ(read(kBoot).pending_update, std::nullopt);
  expect_ok(log_->append_update(MarkerKind::update_begun, kUpdate));
  EXPECT_EQ(read(kBoot).pending_update, kUpdate);
  const lsmt::Entry entry{.offset = Sectors(8), .length = Sectors(8), .physical = Sectors(8)};
  expect_ok(log_->append(std::span(&entry, 1)));
  EXPECT_EQ(read(kBoot).pending_update, kUpdate);
  expect_ok(log_->append_update(MarkerKind::update_done, kUpdate));
  EXPECT_EQ(read(kBoot).pending_update, std::nullopt);
  expect_ok(log_->append_update(MarkerKind::update_begun, kUpdate + 1));
  EXPECT_EQ(read(kBoot).pending_update, kUpdate + 1);
}

TEST_F(UpdateMarks, CountAfterAnotherBootOnlyIfCommitted) {
  commit();
  expect_ok(log_->append_update(MarkerKind::update_begun, kUpdate));
  EXPECT_EQ(read(kOtherBoot).pending_update, std::nullopt);
  commit();
  EXPECT_EQ(read(kOtherBoot).pending_update, kUpdate);
  expect_ok(log_->append_update(MarkerKind::update_done, kUpdate));
  EXPECT_EQ(read(kOtherBoot).pending_update, kUpdate);
  commit();
  EXPECT_EQ(read(kOtherBoot).pending_update, std::nullopt);
}

// Otherwise a flush would have nothing to do, and leave them to chance.
TEST_F(UpdateMarks, AreChangesThatAFlushMakesStable) {
  expect_ok(log_->append_update(MarkerKind::update_begun, kUpdate));
  EXPECT_EQ(log_->position().changes, 1u);
  EXPECT_EQ(read(kBoot).changes, 1u);
  EXPECT_EQ(read(kBoot).uncommitted_changes, 1u);
  commit();
  EXPECT_EQ(read(kBoot).uncommitted_changes, 0u);
}

TEST_F(UpdateMarks, AreCarriedIntoANewLog) {
  lsmt::Header header;
  for (const auto pending : {std::optional<uint64_t>(kUpdate), std::optional<uint64_t>()}) {
    auto draft = expect_value(
        IndexLog::prepare(fs_, "/new", header, LiveIndex(), pending, false, FileInfo()));
    expect_value(IndexLog::install(fs_, "/new", std::move(draft)));
    const LogScan scan = read(kOtherBoot, "/new");
    EXPECT_EQ(scan.pending_update, pending);
    EXPECT_TRUE(scan.clean);
  }
}

}  // namespace
}  // namespace obd::test
