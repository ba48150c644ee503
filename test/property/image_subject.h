// A random image on a host in memory, and what its disk reads as: for tests of what is done to
// whole images.
//
// Errors: throw as expect_ok(). Thread-safety: none.

#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "core/image/image.h"
#include "test/support/memory_file_system.h"
#include "test/support/random.h"
#include "test/support/seeded.h"
#include "test/support/stack_builder.h"

namespace obd::test {

using Bytes = std::vector<std::byte>;

inline Bytes read_config(FileSystem& fs, const ImageConfig& config) {
  const auto image = expect_value(Image::open(fs, config, {.access = Access::read_only}));
  Bytes content(image->size());
  expect_ok(image->read(content, 0));
  return content;
}

inline Bytes read_image(FileSystem& fs, const std::string& path) {
  return read_config(fs, expect_value(load_config(fs, path)));
}

// Writes, of zeros too, zeroes and trims, on the image and on what it should read as.
inline void change_image(FileSystem& fs, const std::string& path, Random& random, Bytes& content) {
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

}  // namespace obd::test
