// Commit, merge, compact, resize and clone on random stacks: the disk stays what it was.

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "core/image/clone.h"
#include "core/image/commit.h"
#include "core/image/compact.h"
#include "core/image/merge.h"
#include "core/image/resize.h"
#include "test/support/memory_file_system.h"
#include "test/support/seeded.h"
#include "test/support/stack_builder.h"

namespace obd::test {
namespace {

using Bytes = std::vector<std::byte>;

constexpr const char* kOutput = "/image/output.lsmt";

Bytes read_config(FileSystem& fs, const ImageConfig& config) {
  const auto image = expect_value(Image::open(fs, config, {.access = Access::read_only}));
  Bytes content(image->size());
  expect_ok(image->read(content, 0));
  return content;
}

Bytes read_image(FileSystem& fs, const std::string& path) {
  return read_config(fs, expect_value(load_config(fs, path)));
}

// Writes, of zeros too, zeroes and trims, on the image and on what it should read as.
void change_image(FileSystem& fs, const std::string& path, Random& random, Bytes& content) {
  const auto image = expect_value(Image::open(fs, path, {}));
  for (uint64_t changes = random.below(15); changes > 0; --changes) {
    const uint64_t unit = random.percent(30) ? 1 : random.percent(50) ? kSectorSize : kBlockSize;
    const uint64_t offset = align_down(random.below(content.size()), unit);
    const uint64_t length =
        std::min(align_up(random.between(1, 5 * kBlockSize), unit), content.size() - offset);
    const auto part = std::span(content).subspan(offset, length);
    std::ranges::fill(part, std::byte{0});
    const uint64_t kind = random.below(100);
    if (kind < 20) {
      expect_ok(image->trim(offset, length));
      continue;
    }
    if (kind < 80) random.fill(part);
    expect_ok(image->write(part, offset));
  }
  if (random.percent(70)) expect_ok(image->close());
}

struct Subject {
  MemoryFileSystem fs;
  Random random;
  Stack stack;
  Bytes content;
  std::string path;
  UpperKind kind = UpperKind::append;

  explicit Subject(uint64_t seed, size_t least_lowers = 0) : random(seed) {
    kind = random.percent(50) ? UpperKind::append : UpperKind::sparse;
    StackOptions options;
    options.size = random.between(9, 150) * kSectorSize;
    options.lowers = least_lowers + random.below(4);
    options.kind = kind;
    const UpperOrigin origin = random.percent(70) ? UpperOrigin::fresh : UpperOrigin::upstream;
    stack = build_stack(fs, random, options, origin);
    path = stack.config.path;
    content = stack.content;
    expect_ok(save_config(fs, stack.config));
    change_image(fs, path, random, content);
  }

  ImageConfig config() { return expect_value(load_config(fs, path)); }
  void expect_content(const std::string& what) { require(read_image(fs, path) == content, what); }
};

std::vector<std::string> upper_warnings(Subject& subject) {
  const auto image =
      expect_value(Image::open(subject.fs, subject.config(), {.access = Access::read_only}));
  return expect_value(image->layers()).back().warnings;
}

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

TEST(Compact, GivesBackAllDeadSpaceAndNoByteOfTheDisk) {
  for_each_seed(200, [](uint64_t seed) {
    Subject subject(seed);
    const CompactReport done = expect_value(compact_image(subject.fs, subject.path, nullptr));
    subject.expect_content("compacting changed the disk");
    if (subject.kind == UpperKind::append) {
      require(done.after.file_bytes == done.after.data_bytes + 4096, "the file is not dense");
    } else {
      require(done.after.allocated_bytes <= done.after.data_bytes + 2 * kBlockSize,
              "blocks that nothing names are still there");
    }
    require(done.before.uuid == done.after.uuid, "the uuid has changed");
    const DiskState before = subject.fs.state();
    const CompactReport again = expect_value(compact_image(subject.fs, subject.path, nullptr));
    require(!again.changed, "there was something left to give back");
    require(subject.fs.state().files == before.files, "doing nothing changed a file");

    change_image(subject.fs, subject.path, subject.random, subject.content);
    subject.expect_content("writing goes wrong afterwards");
    subject.fs.set_boot_id("second-boot");
    const auto image = expect_value(Image::open(subject.fs, subject.path, {}));
  });
}

// Whichever step fails, the disk is the same and compacting again succeeds.
TEST(Compact, AFailureLeavesTheDisk) {
  for_each_seed(4, [](uint64_t seed) {
    for (const Operation operation :
         {Operation::write, Operation::sync, Operation::create, Operation::rename,
          Operation::truncate, Operation::punch, Operation::sync_directory, Operation::read}) {
      for (uint64_t nth = 1;; ++nth) {
        Subject subject(seed);
        {  // Only what was flushed survives a failed sync.
          const auto image = expect_value(Image::open(subject.fs, subject.path, {}));
          expect_ok(image->flush());
          expect_ok(image->close());
        }
        const size_t names = subject.fs.state().names.size();
        subject.fs.inject({.operation = operation, .nth = nth, .code = ENOSPC, .prefix = 700});
        const auto failed = compact_image(subject.fs, subject.path, nullptr);
        const bool hit = subject.fs.faults_hit() > 0;
        subject.fs.clear_faults();
        require(failed.has_value() || hit, "failed without a reason");
        const std::string where =
            fmt::format(" after failure {} of kind {}", nth, static_cast<int>(operation));
        subject.expect_content("the disk is another" + where);
        require(subject.fs.state().names.size() == names, "a file was left behind" + where);
        expect_value(compact_image(subject.fs, subject.path, nullptr));
        subject.expect_content("the disk is another once compacted" + where);
        if (!hit) break;
      }
    }
  });
}

TEST(Compact, NeedsNoSpaceForASecondCopy) {
  MemoryFileSystem fs;
  Random random(1);
  Stack stack = build_stack(fs, random, {.size = 64 * kBlockSize});
  expect_ok(save_config(fs, stack.config));
  Bytes content(64 * kBlockSize);
  {
    const auto image = expect_value(Image::open(fs, stack.config.path, {}));
    for (int round = 0; round < 2; ++round) {
      random.fill(content);
      expect_ok(image->write(content, 0));
    }
    expect_ok(image->close());
  }
  fs.set_space_limit(fs.allocated() + 2 * kBlockSize);
  const CompactReport done = expect_value(compact_image(fs, stack.config.path, nullptr));
  EXPECT_EQ(done.after.file_bytes, content.size() + 4096);
  EXPECT_TRUE(read_image(fs, stack.config.path) == content);
}

TEST(Resize, GrownPartsReadAsZerosAndDataIsNeverCut) {
  for_each_seed(200, [](uint64_t seed) {
    Subject subject(seed);
    for (int round = 0; round < 4; ++round) {
      const uint64_t old_size = subject.content.size();
      const uint64_t size = subject.random.between(1, 2 * old_size / kSectorSize) * kSectorSize;
      const auto done = resize_image(subject.fs, subject.path, size, true);
      const auto last = std::ranges::find_if(subject.content.rbegin(), subject.content.rend(),
                                             [](std::byte b) { return b != std::byte{0}; });
      const auto data_end = static_cast<uint64_t>(subject.content.rend() - last);
      if (done) {
        require(size >= data_end, "data was cut off");
        subject.content.resize(size);
      } else {
        expect_error(std::unexpected<Error>(done.error()), EINVAL);
        require(size < old_size, "growing was refused");
      }
      if (done && size != old_size && subject.random.percent(50)) {
        subject.fs.set_boot_id(fmt::format("boot-{}", round));
      }
      subject.expect_content("the disk is another");
      require(upper_warnings(subject).empty(), "the headers disagree");
      change_image(subject.fs, subject.path, subject.random, subject.content);
      subject.expect_content("writing goes wrong afterwards");
    }
  });
}

TEST(Resize, ShrinkingIsAskedForTwiceAndSaysWhereDataEnds) {
  MemoryFileSystem fs;
  Random random(1);
  Stack stack = build_stack(fs, random, {.size = 64 * kBlockSize});
  const std::string& path = stack.config.path;
  expect_ok(save_config(fs, stack.config));
  {
    const auto image = expect_value(Image::open(fs, path, {}));
    expect_ok(image->write(Bytes(kBlockSize, std::byte{1}), 9 * kBlockSize));
    expect_ok(image->close());
  }
  EXPECT_FALSE(resize_image(fs, path, 10 * kBlockSize, false));
  const auto cut = resize_image(fs, path, 9 * kBlockSize, true);
  ASSERT_FALSE(cut);
  EXPECT_NE(cut.error().message.find("ends at byte 40960"), std::string::npos)
      << cut.error().message;
  EXPECT_TRUE(resize_image(fs, path, 10 * kBlockSize, true));
  EXPECT_EQ(read_image(fs, path).size(), 10 * kBlockSize);
  EXPECT_FALSE(resize_image(fs, path, 1000, true));
  EXPECT_FALSE(resize_image(fs, path, 0, true));
}

TEST(Clone, BothAreTheSameDiskAndGoTheirOwnWays) {
  for_each_seed(150, [](uint64_t seed) {
    Subject subject(seed);
    const size_t lowers = subject.config().lowers.size();
    std::string last = subject.path;
    for (int round = 0; round < 3; ++round) {
      const std::string clone = fmt::format("/clone-{}/config.v1.json", round);
      const CloneReport done = expect_value(clone_image(subject.fs, subject.path, clone));
      require(done.size == subject.content.size(), "the size is wrong");
      subject.expect_content("cloning changed the source");
      Bytes content = subject.content;
      require(read_image(subject.fs, clone) == content, "the clone is another disk");
      change_image(subject.fs, clone, subject.random, content);
      change_image(subject.fs, subject.path, subject.random, subject.content);
      require(read_image(subject.fs, clone) == content, "the clone is not on its own");
      subject.expect_content("the source is not on its own");
      last = clone;
    }
    require(subject.config().lowers.size() <= lowers + 3, "too many layers");
  });
}

TEST(Clone, OfAnUnwrittenImageLeavesItAlone) {
  MemoryFileSystem fs;
  Random random(1);
  Stack stack = build_stack(fs, random, {.size = 64 * kBlockSize, .lowers = 2});
  const std::string& path = stack.config.path;
  expect_ok(save_config(fs, stack.config));
  const CloneReport done = expect_value(clone_image(fs, path, "/clone/config.v1.json"));
  EXPECT_EQ(done.sealed, "");
  EXPECT_EQ(done.lowers, 2u);
  EXPECT_TRUE(read_image(fs, "/clone/config.v1.json") == stack.content);
  const auto taken = clone_image(fs, path, "/clone/config.v1.json");
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code, EEXIST);
}

// Whichever step fails, the source's disk is the same, and cloning elsewhere succeeds.
TEST(Clone, AFailureLeavesTheSource) {
  for_each_seed(3, [](uint64_t seed) {
    for (const Operation operation :
         {Operation::write, Operation::sync, Operation::create, Operation::rename,
          Operation::truncate, Operation::remove, Operation::sync_directory, Operation::open}) {
      for (uint64_t nth = 1;; ++nth) {
        Subject subject(seed);
        {
          const auto image = expect_value(Image::open(subject.fs, subject.path, {}));
          expect_ok(image->flush());
          expect_ok(image->close());
        }
        subject.fs.inject({.operation = operation, .nth = nth, .code = ENOSPC, .prefix = 700});
        const auto failed = clone_image(subject.fs, subject.path, "/clone/config.v1.json");
        const bool hit = subject.fs.faults_hit() > 0;
        subject.fs.clear_faults();
        require(failed.has_value() || hit, "failed without a reason");
        const std::string where =
            fmt::format(" after failure {} of kind {}", nth, static_cast<int>(operation));
        subject.expect_content("the source is another" + where);
        expect_value(clone_image(subject.fs, subject.path, "/second/config.v1.json"));
        subject.expect_content("the source is another once cloned" + where);
        require(read_image(subject.fs, "/second/config.v1.json") == subject.content,
                "the clone is another" + where);
        if (!hit) break;
      }
    }
  });
}

}  // namespace
}  // namespace obd::test
