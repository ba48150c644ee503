// Faults of append layers that are known from overlaybd, one test for each: none is here.

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <span>

#include "core/format/lsmt.h"
#include "core/image/check.h"
#include "test/interop/script_model.h"
#include "test/interop/troubled_host.h"
#include "test/interop/upstream_rules.h"
#include "test/interop/workspace.h"

namespace obd::interop {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kDiskSize = 2 * kMiB;

class AppendFaults : public testing::Test {
 protected:
  AppendFaults()
      : config_(make_image(workspace_.path(), UpperKind::append, kDiskSize,
                           random_bytes(9, kDiskSize))),
        data_(workspace_ / "writable_data"),
        index_(workspace_ / "writable_index") {}

  // Writes to the image and to its model.
  void write(Image& image, uint64_t offset, uint64_t length) {
    const Bytes data = random_bytes(++seed_, length);
    must(image.write(data, offset));
    disk_.write(offset, data);
  }

  // The image, reopened by a process and by a host that never saw the one before, holds `disk_`.
  void expect_content() {
    Troubles troubles("no file");
    troubles.boot_id = "another boot";
    TroubledHost other_boot(troubles);
    for (FileSystem* host : {&posix_file_system(), static_cast<FileSystem*>(&other_boot)}) {
      EXPECT_SAME_BYTES(read_disk(*open_readable(config_, *host)), disk_.bytes());
      const auto image = open_writable(config_, *host);
      EXPECT_SAME_BYTES(read_disk(*image), disk_.bytes());
    }
  }

  void expect_upstream_agrees() {
    EXPECT_NO_THROW(check_append_writer(data_, index_));
    Bytes disk = random_bytes(9, kDiskSize);
    ASSERT_NO_THROW(paint(read_append_pair(data_, index_), data_, disk));
    EXPECT_SAME_BYTES(disk, disk_.bytes());
  }

  Workspace workspace_;
  std::string config_;
  std::string data_;
  std::string index_;
  FlatDisk disk_{random_bytes(9, kDiskSize)};
  uint64_t seed_ = 100;
};

// A record reached the device, the data that it names did not.
TEST_F(AppendFaults, LostDataTailCostsNothingThatWasFlushed) {
  auto image = open_writable(config_);
  write(*image, 0, 65536);
  write(*image, 500000, 4096);
  must(image->flush());
  const FlatDisk flushed = disk_;
  const uint64_t flushed_size = fs::file_size(data_);
  write(*image, 4096, 8192);
  write(*image, 700000, 8192);
  image.reset();
  fs::resize_file(data_, flushed_size);

  disk_ = flushed;
  Troubles troubles("no file");
  troubles.boot_id = "the boot after the power loss";
  TroubledHost host(troubles);
  image = open_writable(config_, host);
  EXPECT_SAME_BYTES(read_disk(*image), disk_.bytes());
  write(*image, 4096, 512);
  close_image(image);
  expect_content();
  expect_upstream_agrees();
}

// Blocks of the index that were allocated but never written.
TEST_F(AppendFaults, ZeroFilledIndexTailCostsNothingThatWasFlushed) {
  auto image = open_writable(config_);
  write(*image, 8192, 65536);
  must(image->flush());
  image.reset();
  append_text(index_, std::string(4096, '\0'));
  expect_content();

  image = open_writable(config_);
  write(*image, 8192, 512);
  close_image(image);
  expect_content();
  expect_upstream_agrees();
}

TEST_F(AppendFaults, StrayBytesAtTheEndOfTheIndexMisalignNoLaterRecord) {
  auto image = open_writable(config_);
  write(*image, 0, 4096);
  image.reset();
  append_text(index_, std::string(7, '\x5A'));

  image = open_writable(config_);
  write(*image, 12288, 4096);
  write(*image, 40960, 4096);
  must(image->flush());
  image.reset();
  expect_content();
  expect_upstream_agrees();
}

TEST_F(AppendFaults, UnalignedEndOfTheDataShiftsNoLaterWrite) {
  auto image = open_writable(config_);
  write(*image, 0, 4096);
  image.reset();
  append_text(data_, std::string(100, '\x5A'));

  image = open_writable(config_);
  write(*image, 12288, 4096);
  EXPECT_SAME_BYTES(read_disk(*image), disk_.bytes());
  close_image(image);
  expect_content();
  expect_upstream_agrees();
}

// The largest size that this process may give to a file, while the object lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(uint64_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    if (getrlimit(RLIMIT_FSIZE, &before_) != 0) throw std::runtime_error("getrlimit");
    const rlimit limit{.rlim_cur = bytes, .rlim_max = before_.rlim_max};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) throw std::runtime_error("setrlimit");
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, SIG_DFL);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
};

TEST_F(AppendFaults, ShortWriteShiftsNoLaterWrite) {
  auto image = open_writable(config_);
  write(*image, 0, 4096);
  {
    // The next write gets as far as 1000 bytes.
    const FileSizeLimit limit(fs::file_size(data_) + 1000);
    const Error error = error_of(image->write(random_bytes(1, 8192), 65536));
    EXPECT_TRUE(mentions(error.message, {"writable_data"})) << error.message;
  }
  EXPECT_SAME_BYTES(read_disk(*image), disk_.bytes());
  write(*image, 131072, 8192);
  EXPECT_SAME_BYTES(read_disk(*image), disk_.bytes());
  close_image(image);
  expect_content();
  expect_upstream_agrees();
}

TEST_F(AppendFaults, FullHostFailsTheRequestAndNothingElse) {
  Troubles troubles("writable_data");
  TroubledHost host(troubles);
  auto image = open_writable(config_, host);
  write(*image, 0, 4096);
  troubles.write_error = ENOSPC;
  const Error error = error_of(image->write(random_bytes(1, 8192), 65536));
  EXPECT_EQ(error.code, ENOSPC);
  EXPECT_SAME_BYTES(read_disk(*image), disk_.bytes());
  troubles.write_error = 0;
  write(*image, 65536, 8192);
  close_image(image);
  expect_content();
  expect_upstream_agrees();
}

TEST_F(AppendFaults, FailedIndexAppendIsReported) {
  Troubles troubles("writable_index");
  TroubledHost host(troubles);
  auto image = open_writable(config_, host);
  for (uint64_t i = 0; i < 3; ++i) write(*image, i * 8192, 4096);
  troubles.write_error = ENOSPC;
  for (uint64_t i = 3; i < 8; ++i) {
    const Error error = error_of(image->write(random_bytes(i, 4096), i * 8192));
    EXPECT_EQ(error.code, ENOSPC);
    EXPECT_TRUE(mentions(error.message, {"writable_index"})) << error.message;
  }
  EXPECT_SAME_BYTES(read_disk(*image), disk_.bytes());  // a failed write is not served either
  troubles.write_error = 0;
  write(*image, 0, 4096);
  close_image(image);
  expect_content();
  expect_upstream_agrees();
}

TEST_F(AppendFaults, FailedDataSyncIsReportedAndEndsWriting) {
  Troubles troubles("writable_data");
  TroubledHost host(troubles);
  auto image = open_writable(config_, host);
  write(*image, 0, 4096);
  troubles.sync_error = EIO;
  const Error error = error_of(image->flush());
  EXPECT_EQ(error.code, EIO);
  EXPECT_TRUE(mentions(error.message, {"writable_data"})) << error.message;

  // What the host dropped cannot be known: nothing more is promised until the layer is reopened.
  troubles.sync_error = 0;
  EXPECT_FALSE(image->write(random_bytes(1, 4096), 0));
  EXPECT_FALSE(image->flush());
  EXPECT_SAME_BYTES(read_disk(*image), disk_.bytes());
  image.reset();

  image = open_writable(config_, host);
  write(*image, 65536, 4096);
  must(image->flush());
  close_image(image);
}

TEST_F(AppendFaults, FailedIndexSyncIsReported) {
  Troubles troubles("writable_index");
  TroubledHost host(troubles);
  auto image = open_writable(config_, host);
  write(*image, 0, 4096);
  troubles.sync_error = EIO;
  const Error error = error_of(image->flush());
  EXPECT_EQ(error.code, EIO);
  EXPECT_TRUE(mentions(error.message, {"writable_index"})) << error.message;
  EXPECT_SAME_BYTES(read_disk(*image), disk_.bytes());
  image.reset();

  troubles.sync_error = 0;
  image = open_writable(config_, host);
  write(*image, 65536, 4096);
  must(image->flush());
  close_image(image);
}

TEST_F(AppendFaults, ZeroLengthWriteAsTheLastOperationHarmsNothing) {
  auto image = open_writable(config_);
  write(*image, 0, 4096);
  must(image->write({}, 8192));
  must(image->zero(8192, 0));
  must(image->trim(8192, 0));
  must(image->flush());
  image.reset();
  expect_content();
  expect_upstream_agrees();
}

// More index entries than overlaybd opens: it seals such a layer, says so, and never opens it.
TEST_F(AppendFaults, MoreThanAMillionRecordsSealToALayerThatOpens) {
  constexpr uint64_t kRecords = lsmt::kMaxUpstreamEntries + 1;
  constexpr uint64_t kSize = kRecords * 2 * kSectorSize;
  const Workspace workspace;
  const UpperFiles files = make_upper(workspace.path(), UpperKind::append, kSize);
  const std::string config = make_config(workspace.path(), {}, files);

  // As overlaybd would have written it: single sectors, apart from each other, all of one content.
  append_text(files.data, std::string(kSectorSize, 'x'));
  std::string records(kRecords * lsmt::kEntrySize, '\0');
  for (uint64_t i = 0; i < kRecords; ++i) {
    const lsmt::Entry entry{
        .offset = Sectors(2 * i), .length = Sectors(1), .physical = lsmt::kFirstDataSector};
    lsmt::encode_entry(
        entry, std::span<std::byte, lsmt::kEntrySize>(
                   reinterpret_cast<std::byte*>(&records[i * lsmt::kEntrySize]), lsmt::kEntrySize));
  }
  append_text(files.index, records);

  const auto expect_content = [](const Image& image) {
    for (const uint64_t sector : {uint64_t{0}, uint64_t{1000}, 2 * kRecords - 2}) {
      Bytes expected(1024);
      std::ranges::fill(std::span(expected).first(kSectorSize), std::byte{'x'});
      EXPECT_SAME_BYTES(read_range(image, sector * kSectorSize, 1024), expected);
    }
  };
  {
    const auto image = open_writable(config);
    EXPECT_TRUE(image->writable());
    expect_content(*image);
  }
  std::string told;
  for (const std::string& warning : must(seal_image(posix_file_system(), config))) told += warning;
  EXPECT_TRUE(mentions(told, {"1000001", "1000000"})) << told;
  const auto image = open_readable(config);
  expect_content(*image);
  EXPECT_EQ(must(image->layers()).front().extents, kRecords);
  EXPECT_TRUE(mentions(warnings_of(*image), {"1000001", "1000000"})) << warnings_of(*image);
}

// A sealed data file whose index is still there: written again, it could never be read as a layer.
// A record changed behind our back, under the boot that wrote it: no crash explains that.
TEST_F(AppendFaults, DamagedRecordIsReportedAsWrong) {
  auto image = open_writable(config_);
  write(*image, 0, 4096);
  write(*image, 65536, 4096);
  must(image->flush());
  write(*image, 131072, 4096);
  must(image->flush());
  image.reset();
  EXPECT_TRUE(must(check_image_or_layer(posix_file_system(), config_, false)).findings.empty());

  // The first record after the header and the session marker; its logical offset, in sectors.
  patch(index_, 4096 + 16, little_endian(8, 2));
  const CheckReport report = must(check_image_or_layer(posix_file_system(), config_, false));
  const auto wrong = std::ranges::find_if(report.findings, &Finding::wrong);
  ASSERT_NE(wrong, report.findings.end());
  EXPECT_TRUE(mentions(wrong->text, {"writable_index", "check value"})) << wrong->text;
}

TEST_F(AppendFaults, SealedDataFileIsNeverWrittenAgain) {
  auto image = open_writable(config_);
  write(*image, 0, 65536);
  close_image(image);
  const std::string index = read_text(index_);
  const std::string config = read_text(config_);
  must(seal_image(posix_file_system(), config_));
  const std::string sealed = read_text(data_);
  write_text(index_, index);
  write_text(config_, config);

  const Error error = open_error(config_, Access::read_write);
  EXPECT_TRUE(mentions(error.message, {"writable_data", "seal"})) << error.message;
  EXPECT_TRUE(read_text(data_) == sealed);

  must(seal_image(posix_file_system(), config_));  // as after a crash in the middle of sealing
  EXPECT_TRUE(read_text(data_) == sealed);
  EXPECT_SAME_BYTES(read_disk(*open_readable(config_)), disk_.bytes());
}

// The bytes between a sealed layer's index and its trailer come from nowhere.
TEST_F(AppendFaults, SealedLayerDisclosesNoMemory) {
  auto image = open_writable(config_);
  write(*image, 0, 512);
  write(*image, 8192, 512);
  close_image(image);
  must(seal_image(posix_file_system(), config_));
  EXPECT_NO_THROW(check_sealed_writer(data_));
}

}  // namespace
}  // namespace obd::interop
