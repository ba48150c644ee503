// An index log full of dead records is written anew at close, and nothing is lost by that.

#include <gtest/gtest.h>

#include "test/support/memory_file_system.h"
#include "test/support/modelled_image.h"
#include "test/support/seeded.h"
#include "test/support/stack_builder.h"

namespace obd::test {
namespace {

constexpr uint64_t kOverwrites = 3000;

void overwrite_and_reopen(uint64_t seed, UpperKind kind) {
  Random random(seed);
  MemoryFileSystem fs;
  StackOptions options;
  options.size = 64 * kBlockSize;
  options.lowers = 1;
  options.kind = kind;
  const Stack stack = build_stack(fs, random, options);
  DiskModel model(stack.content);
  ModelledImage image(fs, stack.config, model);
  const std::string& index = stack.config.upper->index;
  uint64_t largest = 0;
  for (int session = 0; session < 2; ++session) {
    expect_ok(image.open());
    for (uint64_t i = 0; i < kOverwrites; ++i) {
      std::vector<std::byte> data(kBlockSize);
      random.fill(data);
      const uint64_t offset = random.below(64) * kBlockSize;
      // In a sparse layer only a change between data and zeros is recorded.
      if (random.percent(40)) {
        expect_ok(image.zero(offset, kBlockSize));
      } else {
        expect_ok(image.write(data, offset));
      }
    }
    largest = expect_value(fs.open(index, Access::read_only))->info()->size;
    expect_ok(image.close());
    const auto closed = expect_value(expect_value(fs.open(index, Access::read_only))->info());
    // A header, at most an entry for each block, a marker.
    require(closed.size <= 4096 + 16 * (64 + 1),
            fmt::format("the index is {} bytes long after closing", closed.size));
    fs.set_boot_id(fmt::format("boot-{}", session));
  }
  require(largest > 4096 + 16 * 1000, "the test wrote too few records");
  require(!expect_value(fs.exists(index + ".tmp")), "a temporary file is left");
  expect_ok(image.open(Access::read_only));
  require(expect_value(image.read_all()) == model.newest(), "content was lost");
}

TEST(LogRewrite, Append) {
  for_each_seed(3, [](uint64_t seed) { overwrite_and_reopen(seed, UpperKind::append); });
}

TEST(LogRewrite, Sparse) {
  for_each_seed(3, [](uint64_t seed) { overwrite_and_reopen(seed, UpperKind::sparse); });
}

}  // namespace
}  // namespace obd::test
