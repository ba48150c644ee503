// Compact, resize and clone on random stacks: the disk stays what it was.

#include <gtest/gtest.h>

#include <cerrno>

#include "core/image/clone.h"
#include "core/image/compact.h"
#include "core/image/resize.h"
#include "test/property/image_subject.h"

namespace obd::test {
namespace {

std::vector<std::string> upper_warnings(Subject& subject) {
  const auto image =
      expect_value(Image::open(subject.fs, subject.config(), {.access = Access::read_only}));
  return expect_value(image->layers()).back().warnings;
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
