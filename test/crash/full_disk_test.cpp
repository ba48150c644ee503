// The host's disk is full: requests fail with ENOSPC, the image stays consistent and readable, and
// writing works again once there is space.

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "test/crash/sessions.h"
#include "test/support/memory_file_system.h"
#include "test/support/seeded.h"
#include "test/support/stack_builder.h"

namespace obd::test {
namespace {

// Returns how often there was no space.
int fill_up(uint64_t seed, UpperKind kind) {
  Random random(seed);
  MemoryFileSystem fs;
  StackOptions options = small_stack(random, kind);
  options.size = random.between(50, 150) * kSectorSize;
  const Stack stack = build_stack(fs, random, options);
  std::vector<std::byte> disk = stack.content;
  auto image = expect_value(Image::open(fs, stack.config, {}));

  int full = 0;
  for (int i = 0; i < 100; ++i) {
    if (random.percent(10)) {
      fs.set_space_limit(fs.allocated() + random.below(6) * kBlockSize);
    } else if (random.percent(10)) {
      fs.set_space_limit(std::nullopt);
    }
    if (random.percent(20)) {
      if (const auto flushed = image->flush(); !flushed) expect_error(flushed, ENOSPC);
      continue;
    }
    const uint64_t offset = random.below(disk.size());
    const uint64_t length = random.between(1, std::min<uint64_t>(disk.size() - offset, 12000));
    std::vector<std::byte> data(length);
    const bool zero = random.percent(25);
    if (!zero) random.fill(data);
    const auto done = zero ? image->zero(offset, length) : image->write(data, offset);

    std::vector<std::byte> found(disk.size());
    expect_ok(image->read(found, 0));
    std::vector<std::byte> changed = disk;
    std::copy(data.begin(), data.end(), changed.begin() + static_cast<ptrdiff_t>(offset));
    if (done) {
      require(found == changed, "a write that succeeded is not there");
    } else {
      ++full;
      expect_error(done, ENOSPC);
      for (uint64_t at = 0; at < disk.size(); ++at) {
        if (found[at] == disk[at] || found[at] == changed[at]) continue;
        require(false, fmt::format("byte {} is neither old nor new", at));
      }
    }
    disk = found;
  }

  fs.set_space_limit(std::nullopt);
  std::vector<std::byte> last(disk.size());
  random.fill(last);
  expect_ok(image->write(std::span(last).first(disk.size() / 2), 0));
  std::copy_n(last.begin(), disk.size() / 2, disk.begin());
  expect_ok(image->flush());
  if (random.percent(50)) {
    expect_ok(image->close());
    fs.set_boot_id("second-boot");
  }
  image.reset();
  image = expect_value(Image::open(fs, stack.config, {}));
  std::vector<std::byte> found(disk.size());
  expect_ok(image->read(found, 0));
  require(found == disk, "reopening finds something else");
  return full;
}

void fill_up_often(UpperKind kind) {
  int full = 0;
  for_each_seed(40, [&](uint64_t seed) { full += fill_up(seed, kind); });
  EXPECT_GT(full, 0);
}

TEST(FullDisk, Append) { fill_up_often(UpperKind::append); }

TEST(FullDisk, Sparse) { fill_up_often(UpperKind::sparse); }

}  // namespace
}  // namespace obd::test
