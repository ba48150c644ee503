// Disks of sizes at which numbers overflow: what is written far out is found there, and nowhere
// else.

#include <gtest/gtest.h>

#include <cerrno>
#include <map>

#include "core/format/lsmt.h"
#include "core/image/image.h"
#include "test/support/memory_file_system.h"
#include "test/support/seeded.h"
#include "test/support/stack_builder.h"

namespace obd::test {
namespace {

constexpr uint64_t kWindow = 128 * 1024;

// Random changes within windows around the places where 32, 41, 50 bits end.
void write_far_out(uint64_t seed, UpperKind kind, uint64_t disk_size) {
  Random random(seed);
  MemoryFileSystem fs;
  StackOptions options;
  options.size = 4096;
  options.lowers = 1;
  Stack stack = build_stack(fs, random, options);  // for its lower
  stack.config.upper = UpperConfig{"/image/far_data", "/image/far_index"};
  NewLayer layer;
  layer.kind = kind;
  layer.virtual_size = disk_size;
  layer.uuid = Uuid::random();
  expect_ok(create_writable_layer(fs, "/image/far_data", "/image/far_index", layer));

  const uint64_t writable_end = std::min(disk_size, lsmt::kAddressableEnd.bytes());
  std::map<uint64_t, std::vector<std::byte>> windows;
  for (const uint64_t middle : {uint64_t{1} << 31, uint64_t{1} << 32, uint64_t{1} << 41,
                                uint64_t{1} << 42, writable_end - kWindow / 2}) {
    if (middle + kWindow / 2 <= writable_end) {
      windows[middle - kWindow / 2] = std::vector<std::byte>(kWindow);
    }
  }
  auto image = expect_value(Image::open(fs, stack.config, {}));
  require(image->size() == disk_size, "wrong size");
  for (int i = 0; i < 200; ++i) {
    auto window = windows.begin();
    std::advance(window, static_cast<ptrdiff_t>(random.below(windows.size())));
    auto& [base, content] = *window;
    const uint64_t offset = random.below(kWindow);
    const auto part = std::span(content).subspan(offset, random.below(kWindow - offset) + 1);
    if (random.percent(60)) {
      random.fill(part);
      expect_ok(image->write(part, base + offset));
    } else {
      std::fill(part.begin(), part.end(), std::byte{0});
      expect_ok(image->zero(base + offset, part.size()));
    }
    if (random.percent(5)) {
      if (random.percent(50)) expect_ok(image->close());
      image.reset();
      image = expect_value(Image::open(fs, stack.config, {}));
    }
    if (!random.percent(20)) continue;
    for (const auto& [at, expected] : windows) {
      std::vector<std::byte> found(kWindow);
      expect_ok(image->read(found, at));
      require(found == expected, fmt::format("the window at {} is wrong", at));
    }
  }

  // Everything outside the windows is as it was, however large: one zero over all of it.
  uint64_t data = 0;
  expect_ok(image->extents(0, disk_size, [&](const ImageExtent& run) {
    if (run.kind == ExtentKind::data) data += run.length;
    return true;
  }));
  require(data <= (windows.size() + 1) * kWindow, fmt::format("{} bytes of data", data));
  if (disk_size > writable_end) {
    const std::byte one{1};
    expect_error(image->write(std::span(&one, 1), writable_end), EFBIG);
  }
}

TEST(LargeDisk, FourTebibytesAppend) {
  for_each_seed(8, [](uint64_t seed) {
    write_far_out(seed, UpperKind::append, (uint64_t{4} << 40) + 512 * 3);
  });
}

TEST(LargeDisk, FourTebibytesSparse) {
  for_each_seed(8, [](uint64_t seed) {
    write_far_out(seed, UpperKind::sparse, (uint64_t{4} << 40) + 512 * 3);
  });
}

TEST(LargeDisk, LargestAppend) {
  for_each_seed(8, [](uint64_t seed) { write_far_out(seed, UpperKind::append, kMaxDiskSize); });
}

TEST(LargeDisk, LargestAddressableSparse) {
  for_each_seed(8, [](uint64_t seed) {
    write_far_out(seed, UpperKind::sparse, lsmt::kAddressableEnd.bytes());
  });
}

}  // namespace
}  // namespace obd::test
