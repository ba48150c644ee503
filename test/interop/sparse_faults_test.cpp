// Faults of sparse layers that are known from overlaybd, one test for each: none is here.

#include <gtest/gtest.h>

#include "test/interop/script_model.h"
#include "test/interop/upstream_rules.h"
#include "test/interop/workspace.h"

namespace obd::interop {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kDiskSize = 2 * kMiB;

class SparseFaults : public testing::Test {
 protected:
  SparseFaults()
      : config_(make_image(workspace_.path(), UpperKind::sparse, kDiskSize, disk_.bytes())),
        data_(workspace_ / "writable_data") {}

  void write(Image& image, uint64_t offset, uint64_t length) {
    const Bytes data = random_bytes(++seed_, length);
    must(image.write(data, offset));
    disk_.write(offset, data);
  }

  void trim(Image& image, uint64_t offset, uint64_t length) {
    must(image.trim(offset, length));
    disk_.zero(offset, length);
  }

  void seal_and_expect_content() {
    must(seal_image(posix_file_system(), config_));
    EXPECT_SAME_BYTES(read_disk(*open_readable(config_)), disk_.bytes());
    EXPECT_NO_THROW(check_sealed_writer(data_));
    Bytes foreign = random_bytes(3, kDiskSize);
    paint(read_sealed_layer(data_), data_, foreign);
    EXPECT_SAME_BYTES(foreign, disk_.bytes());
  }

  Workspace workspace_;
  FlatDisk disk_{random_bytes(3, kDiskSize)};
  std::string config_;
  std::string data_;
  uint64_t seed_ = 100;
};

TEST_F(SparseFaults, SectorWriteKeepsTheRestOfItsBlockAfterReopening) {
  auto image = open_writable(config_);
  write(*image, 4096 + 1024, 512);
  EXPECT_SAME_BYTES(read_disk(*image), disk_.bytes());
  close_image(image);
  image = open_writable(config_);
  EXPECT_SAME_BYTES(read_disk(*image), disk_.bytes());
  image.reset();

  Bytes foreign = random_bytes(3, kDiskSize);  // and overlaybd, which sees the whole block, agrees
  paint(read_sparse_layer(data_), data_, foreign);
  EXPECT_SAME_BYTES(foreign, disk_.bytes());
}

TEST_F(SparseFaults, SectorWriteKeepsTheRestOfItsBlockAfterSealing) {
  auto image = open_writable(config_);
  write(*image, 8192 + 512, 512);
  close_image(image);
  seal_and_expect_content();
}

TEST_F(SparseFaults, TrimSurvivesReopening) {
  auto image = open_writable(config_);
  write(*image, 65536, 65536);
  trim(*image, 0, 8192);
  trim(*image, 65536 + 4096, 16384);
  trim(*image, 300001, 30001);
  EXPECT_SAME_BYTES(read_disk(*image), disk_.bytes());
  image.reset();  // as if killed
  image = open_writable(config_);
  EXPECT_SAME_BYTES(read_disk(*image), disk_.bytes());
  close_image(image);
  EXPECT_SAME_BYTES(read_disk(*open_readable(config_)), disk_.bytes());
}

TEST_F(SparseFaults, TrimSurvivesSealing) {
  auto image = open_writable(config_);
  write(*image, 65536, 65536);
  trim(*image, 0, 8192);
  trim(*image, 65536 + 4096, 16384);
  close_image(image);
  seal_and_expect_content();
}

// A trimmed range is a hole in the file, a written zero is not: the copies turn one into the other.
class SparseCopies : public SparseFaults, public testing::WithParamInterface<const char*> {};

TEST_P(SparseCopies, ReadRight) {
  auto image = open_writable(config_);
  write(*image, 4096 + 1024, 512);
  trim(*image, 65536, 65536);
  const Bytes zeros(32768);
  must(image->write(zeros, 262144));
  disk_.write(262144, zeros);
  write(*image, 524288, 65536);
  trim(*image, 524288 + 8192, 8192);
  close_image(image);

  const fs::path copy = workspace_.path() / "copy";
  fs::create_directories(copy);
  for (const char* file : {"writable_data", "writable_index"}) {
    run("cp --sparse=" + std::string(GetParam()) + " '" + (workspace_ / file) + "' '" +
        copy.string() + "'");
  }
  const UpperFiles files{.data = "writable_data", .index = "writable_index"};
  const std::string copied = make_config(copy, {"../base.lsmt"}, files);
  for (const std::string& config : {config_, copied}) {
    EXPECT_SAME_BYTES(read_disk(*open_readable(config)), disk_.bytes());
    EXPECT_SAME_BYTES(read_disk(*open_writable(config)), disk_.bytes());
  }

  image = open_writable(copied);
  write(*image, 65536 + 512, 512);
  write(*image, 1000000, 100);
  trim(*image, 0, 4096);
  close_image(image);
  image = open_writable(copied);
  EXPECT_SAME_BYTES(read_disk(*image), disk_.bytes());
}

INSTANTIATE_TEST_SUITE_P(Cp, SparseCopies, testing::Values("always", "never"),
                         [](const auto& how) { return std::string(how.param); });

}  // namespace
}  // namespace obd::interop
