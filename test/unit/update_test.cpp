// The update files that an image meets. Applying one, and every crash in between, is
// test/crash/update_test.cpp.

#include "core/image/update.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "core/format/log_marker.h"
#include "core/layer/layer_writer.h"
#include "test/support/memory_file_system.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

constexpr uint64_t kSize = 16 * kBlockSize;
const std::string kUpdate = "/image/data.update";

class Updates : public testing::Test {
 protected:
  Updates() {
    config_.path = "/image/config.v1.json";
    config_.upper = UpperConfig{"/image/data", "/image/index"};
    const NewLayer layer{.virtual_size = kSize, .uuid = Uuid::random(), .parent_uuid = {}};
    expect_ok(create_writable_layer(fs_, config_.upper->data, config_.upper->index, layer));
    wanted_ = expect_value(fs_.create("/wanted", 0644));
    expect_ok(wanted_->write_at(bytes(3 * kBlockSize, 7), 5 * kBlockSize));
  }

  static std::vector<std::byte> bytes(size_t size, int value) {
    return std::vector<std::byte>(size, std::byte(value));
  }

  bool write(uint64_t length = kSize) {
    const auto opened = expect_value(open_for_update(fs_, config_));
    return expect_value(write_update(fs_, *opened.image, *wanted_, length, nullptr));
  }

  // As a crash leaves it after the first mark.
  void begin(uint64_t hash) {
    const auto image = expect_value(Image::open(fs_, config_, {}));
    expect_ok(image->begin_update(hash));
  }

  uint64_t hash_of_update() {
    const auto layer = expect_value(SealedLayer::open(fs_, kUpdate));
    return lsmt::marker_hash(layer->trailer().uuid.text());
  }

  std::vector<std::byte> disk() {
    const auto image = expect_value(Image::open(fs_, config_, {.access = Access::read_only}));
    std::vector<std::byte> content(image->size());
    expect_ok(image->read(content, 0));
    return content;
  }

  void expect_refused(int code, const std::string& words) {
    const auto opened = open_for_update(fs_, config_);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, code) << opened.error().message;
    EXPECT_TRUE(opened.error().message.contains(kUpdate)) << opened.error().message;
    EXPECT_TRUE(opened.error().message.contains(words)) << opened.error().message;
  }

  MemoryFileSystem fs_;
  ImageConfig config_;
  std::unique_ptr<File> wanted_;
};

TEST_F(Updates, HoldWhatDiffersAlone) {
  {
    const auto image = expect_value(Image::open(fs_, config_, {}));
    expect_ok(image->write(bytes(4 * kBlockSize, 7), 5 * kBlockSize));
    expect_ok(image->close());
  }
  ASSERT_TRUE(write());
  const auto layer = expect_value(SealedLayer::open(fs_, kUpdate));
  const auto index = expect_value(layer->take_index());
  ASSERT_EQ(index.size(), 1u);
  EXPECT_TRUE(index[0].zeroed());
  EXPECT_EQ(index[0].offset().bytes(), 8 * kBlockSize);
  EXPECT_EQ(index[0].length().bytes(), kBlockSize);
}

TEST_F(Updates, AreNotWrittenWhenNothingDiffers) {
  ASSERT_TRUE(write());
  {
    const auto opened = expect_value(open_for_update(fs_, config_));
    EXPECT_TRUE(expect_value(write_update(fs_, *opened.image, *wanted_, kSize, nullptr)));
    expect_ok(apply_update(fs_, *opened.image));
    expect_ok(opened.image->close());
  }
  EXPECT_FALSE(write());
  EXPECT_FALSE(expect_value(fs_.exists(kUpdate)));
}

TEST_F(Updates, ThatHaveNotBegunAreRemoved) {
  ASSERT_TRUE(write());
  EXPECT_EQ(disk(), bytes(kSize, 0));
  EXPECT_FALSE(expect_value(open_for_update(fs_, config_)).finished_earlier);
  EXPECT_FALSE(expect_value(fs_.exists(kUpdate)));
  EXPECT_EQ(disk(), bytes(kSize, 0));
}

TEST_F(Updates, ThatHaveBegunAreFinished) {
  ASSERT_TRUE(write());
  begin(hash_of_update());
  EXPECT_EQ(Image::open(fs_, config_, {}).error().code, EUCLEAN);
  EXPECT_TRUE(expect_value(open_for_update(fs_, config_)).finished_earlier);
  EXPECT_FALSE(expect_value(fs_.exists(kUpdate)));
  EXPECT_EQ(disk()[5 * kBlockSize], std::byte{7});
}

// On a full host the next attempt must not need more space than the one that failed.
TEST_F(Updates, WriteOnlyWhatIsNotThereYet) {
  ASSERT_TRUE(write());
  const auto info = [&] {
    return expect_value(expect_value(fs_.open("/image/data", Access::read_only))->info());
  };
  uint64_t before = 0;
  begin(hash_of_update());
  {
    const auto image = expect_value(Image::open(fs_, config_, {.finish_update = true}));
    expect_ok(image->write(bytes(2 * kBlockSize, 7), 5 * kBlockSize));
    expect_ok(image->close());
    before = info().size;
  }
  EXPECT_TRUE(expect_value(open_for_update(fs_, config_)).finished_earlier);
  EXPECT_EQ(info().size, before + kBlockSize);
  const std::vector<std::byte> after = disk();
  const std::vector<std::byte> expected = bytes(3 * kBlockSize, 7);
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), after.begin() + 5 * kBlockSize));
}

TEST_F(Updates, AreForNobodyWhoMayNotReadTheUpper) {
  const auto upper = expect_value(fs_.open("/image/data", Access::read_write));
  const FileInfo info = expect_value(upper->info());
  expect_ok(upper->set_owner_and_mode(info.owner, info.group, 0640));
  ASSERT_TRUE(write());
  EXPECT_EQ(expect_value(expect_value(fs_.open(kUpdate, Access::read_only))->info()).mode, 0640U);
}

TEST_F(Updates, OfAnotherLayerAreNeitherAppliedNorRemoved) {
  LayerOptions options;
  options.virtual_size = kSize;
  options.uuid = Uuid::random();
  options.parent_uuid = Uuid::random();
  const auto writer = expect_value(LayerWriter::create(fs_, kUpdate, options));
  expect_ok(writer->finish());
  expect_refused(EEXIST, "move it away");
  begin(hash_of_update());
  expect_refused(EINVAL, "is not the update");
  EXPECT_TRUE(expect_value(fs_.exists(kUpdate)));
}

TEST_F(Updates, OtherFilesAreNeitherAppliedNorRemoved) {
  expect_ok(replace_file(fs_, kUpdate, "somebody's notes"));
  expect_refused(EEXIST, "move it away");
  EXPECT_TRUE(expect_value(fs_.exists(kUpdate)));
}

TEST_F(Updates, OfAnotherTimeAreNotApplied) {
  ASSERT_TRUE(write());
  begin(hash_of_update() ^ 1);
  expect_refused(EINVAL, "is not the update");
}

TEST_F(Updates, ForADiskOfAnotherSizeAreNotApplied) {
  ASSERT_TRUE(write(2 * kSize));
  begin(hash_of_update());
  expect_refused(EINVAL, "virtual_size");
}

// The log may have said that the update has begun.
TEST_F(Updates, AreKeptWhenTheLogIsDamaged) {
  ASSERT_TRUE(write());
  begin(hash_of_update());
  const auto log = expect_value(fs_.open("/image/index", Access::read_write));
  expect_ok(log->write_at(bytes(16, 0xEE), lsmt::kHeaderSize));
  expect_refused(EUCLEAN, "cannot be told");
  EXPECT_TRUE(expect_value(fs_.exists(kUpdate)));
}

TEST_F(Updates, ThatAreMissingAreAskedFor) {
  begin(1);
  expect_refused(ENOENT, "is missing");
}

TEST_F(Updates, NeedAnUpper) {
  config_.lowers = {"/image/data"};
  config_.upper.reset();
  EXPECT_EQ(open_for_update(fs_, config_).error().code, EINVAL);
}

}  // namespace
}  // namespace obd::test
