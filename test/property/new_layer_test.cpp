// Commit and merge on random stacks: the new layer reads as what it was made from, in its place.

#include <gtest/gtest.h>

#include <cerrno>

#include "core/image/commit.h"
#include "core/image/merge.h"
#include "test/property/image_subject.h"

namespace obd::test {
namespace {

constexpr const char* kOutput = "/image/output.lsmt";

TEST(Commit, TheLayerReadsTheSameInTheUppersPlace) {
  for_each_seed(150, [](uint64_t seed) {
    Subject subject(seed);
    const LayerInfo layer =
        expect_value(commit_upper(subject.fs, subject.config(), {.path = kOutput}, nullptr));
    subject.expect_content("committing changed the image");
    ImageConfig stacked = subject.config();
    stacked.upper.reset();
    stacked.lowers.emplace_back(kOutput);
    require(read_config(subject.fs, stacked) == subject.content, "the layer is another");
    require(layer.virtual_size == subject.content.size(), "the size is wrong");
    require(layer.dead_bytes == 0, "the layer is not dense");
    const bool has_lowers = !subject.config().lowers.empty();
    require(has_lowers == !layer.parent_uuid.is_nil(), "the parent is wrong");
  });
}

TEST(Commit, LeavesNothingBehindWhenItFails) {
  Subject subject(7);
  subject.fs.inject({.operation = Operation::write, .nth = 2, .code = ENOSPC});
  const auto failed = commit_upper(subject.fs, subject.config(), {.path = kOutput}, nullptr);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ENOSPC);
  subject.fs.clear_faults();
  for (const auto& [name, file] : subject.fs.state().names) {
    EXPECT_EQ(name.find("output"), std::string::npos) << name;
  }
}

TEST(Commit, NeverOverwritesTheImagesOwnFiles) {
  Subject subject(7, 1);
  LayerOutput output{.path = subject.config().lowers.front()};
  output.options.overwrite = true;
  const auto failed = commit_upper(subject.fs, subject.config(), output, nullptr);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, EINVAL);
  subject.expect_content("the refused commit changed the image");
}

TEST(Commit, RefusesAnImageThatIsBeingWritten) {
  Subject subject(7);
  const auto writer = expect_value(Image::open(subject.fs, subject.path, {}));
  const auto failed = commit_upper(subject.fs, subject.config(), {.path = kOutput}, nullptr);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, EBUSY);
}

TEST(Commit, KeepsZerosThatHideALower) {
  MemoryFileSystem fs;
  Random random(1);
  Stack stack = build_stack(fs, random, {.size = 8 * kBlockSize});
  expect_ok(save_config(fs, stack.config));
  auto image = expect_value(Image::open(fs, stack.config.path, {}));
  const Bytes data(8 * kBlockSize, std::byte{1});
  expect_ok(image->write(data, 0));
  // A block of written zeros, and zeros in the middle of a block, which stay data.
  expect_ok(image->write(Bytes(kBlockSize), kBlockSize));
  expect_ok(image->write(Bytes(kSectorSize), 3 * kBlockSize + kSectorSize));
  expect_ok(image->close());
  image.reset();
  const LayerInfo layer = expect_value(commit_upper(fs, stack.config, {.path = kOutput}, nullptr));
  EXPECT_EQ(layer.zero_bytes, kBlockSize);
  EXPECT_EQ(layer.data_bytes, 7 * kBlockSize);
}

TEST(Merge, AWholeImageReadsTheSame) {
  for_each_seed(100, [](uint64_t seed) {
    Subject subject(seed);
    const LayerInfo layer =
        expect_value(merge_layers(subject.fs, subject.config(), {}, {.path = kOutput}, nullptr));
    ImageConfig merged = subject.config();
    merged.upper.reset();
    merged.lowers = {kOutput};
    require(read_config(subject.fs, merged) == subject.content, "the merged layer is another");
    require(layer.zero_bytes == 0, "there are zeros although nothing is below");
  });
}

TEST(Merge, LayersReadTheSameOverAnything) {
  for_each_seed(100, [](uint64_t seed) {
    Subject subject(seed, 2);
    const ImageConfig config = subject.config();
    // All but the bottom one, as files without an image.
    ImageConfig files;
    files.path = config.lowers[1];
    files.lowers.assign(config.lowers.begin() + 1, config.lowers.end());
    expect_value(merge_layers(subject.fs, files, {.at_bottom = false}, {.path = kOutput}, nullptr));
    ImageConfig stacked = config;
    stacked.lowers = {config.lowers.front(), kOutput};
    require(read_config(subject.fs, stacked) == subject.content, "the merged layer is another");
  });
}

TEST(Merge, ARangeCanBeReplaced) {
  for_each_seed(150, [](uint64_t seed) {
    Subject subject(seed, 1);
    const ImageConfig before = subject.config();
    LowerRange range;
    range.first = subject.random.below(before.lowers.size());
    range.last = subject.random.between(range.first, before.lowers.size() - 1);
    const std::string top = before.lowers[range.last];
    const Uuid top_uuid = expect_value(SealedLayer::open(subject.fs, top))->trailer().uuid;
    const LayerInfo layer = expect_value(merge_layers(
        subject.fs, before, {.range = range, .replace = true}, {.path = kOutput}, nullptr));
    const ImageConfig after = subject.config();
    require(after.lowers.size() == before.lowers.size() - (range.last - range.first), "lowers");
    require(after.lowers[range.first] == kOutput, "the layer is not in its place");
    require(layer.uuid == top_uuid, "the layer above has lost its parent");
    subject.expect_content("the disk is another");
    change_image(subject.fs, subject.path, subject.random, subject.content);
    subject.expect_content("writing goes wrong afterwards");
  });
}

// A larger layer above shows what a smaller one in the range had cut off.
TEST(Merge, KeepsWhatALargerLayerAboveShows) {
  MemoryFileSystem fs;
  const auto make = [&](const std::string& path, uint64_t size, uint64_t data_at) {
    LayerOptions options;
    options.virtual_size = size;
    const auto writer = expect_value(LayerWriter::create(fs, path, options));
    expect_ok(writer->append_data(Sectors::floor(data_at), Bytes(kBlockSize, std::byte{7})));
    expect_ok(writer->finish());
    return path;
  };
  ImageConfig config;
  config.path = "/image/config.v1.json";
  config.lowers = {make("/image/a", 16 * kBlockSize, 12 * kBlockSize),
                   make("/image/b", 4 * kBlockSize, 0),
                   make("/image/c", 16 * kBlockSize, 8 * kBlockSize)};
  expect_ok(save_config(fs, config));
  const Bytes content = read_image(fs, config.path);
  ASSERT_EQ(content[12 * kBlockSize], std::byte{7});
  const LayerInfo layer = expect_value(merge_layers(
      fs, config, {.range = LowerRange{0, 1}, .replace = true}, {.path = kOutput}, nullptr));
  EXPECT_EQ(layer.virtual_size, 4 * kBlockSize);
  EXPECT_TRUE(read_image(fs, config.path) == content);
}

TEST(Merge, ReplacingWantsTheImageUnused) {
  Subject subject(3, 2);
  const MergeOptions options{.range = LowerRange{0, 1}, .replace = true};
  {
    const auto writer = expect_value(Image::open(subject.fs, subject.path, {}));
    const auto failed =
        merge_layers(subject.fs, subject.config(), options, {.path = kOutput}, nullptr);
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code, EBUSY);
  }
  const auto out_of_range = merge_layers(subject.fs, subject.config(), {.range = LowerRange{0, 99}},
                                         {.path = kOutput}, nullptr);
  ASSERT_FALSE(out_of_range);
  EXPECT_EQ(out_of_range.error().code, EINVAL);
}

}  // namespace
}  // namespace obd::test
