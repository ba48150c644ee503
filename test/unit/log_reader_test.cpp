#include "core/layer/log_reader.h"

#include <gtest/gtest.h>

#include "core/layer/index_log.h"
#include "test/support/memory_file_system.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

using lsmt::MarkerKind;

constexpr uint64_t kBoot = 1;
constexpr uint64_t kOtherBoot = 2;
constexpr uint64_t kUpdate = 0xABCDEF;

// A log of one session.
class UpdateMarks : public testing::Test {
 protected:
  UpdateMarks() {
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

  MemoryFileSystem fs_;
  std::unique_ptr<IndexLog> log_;
};

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
