// A ZFile that opens gives for each block its content or an error, always the same one, however it
// is read: alone, in a scan, in odd pieces through a cache that is too small. No allocation is
// larger than the input and a few blocks.

#include <sanitizer/allocator_interface.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "core/format/zfile.h"
#include "core/zfile/open_blob.h"
#include "test/fuzz/bounds.h"
#include "test/fuzz/fuzz.h"

namespace {

using namespace obd;

using Content = std::optional<std::vector<std::byte>>;  // none: an error

// Of a large file, as much as this at both ends is read.
constexpr uint64_t kMostRead = uint64_t{1} << 19;

size_t largest_allocation = 0;

void on_malloc(const volatile void* /*at*/, size_t size) {
  largest_allocation = std::max(largest_allocation, size);
}
void on_free(const volatile void* /*at*/) {}

struct Range {
  uint64_t from, to;
};

Content read(const Blob& blob, Range range) {
  std::vector<std::byte> content(range.to - range.from);
  const auto got = blob.read_at(content, range.from);
  if (!got) {
    fuzz::require_sentence(got.error(), "/layer");
    return std::nullopt;
  }
  fuzz::require(*got == content.size(), "what is within the content is there");
  return content;
}

// The blocks that a range touches, each read on its own, and cut to the range.
Content expected(const std::vector<Content>& blocks, uint64_t first, uint64_t block_size,
                 Range range) {
  std::vector<std::byte> content;
  for (uint64_t at = range.from; at < range.to;) {
    const Content& block = blocks[at / block_size - first];
    if (!block) return std::nullopt;
    const auto rest = std::span(*block).subspan(at % block_size);
    const auto part = rest.first(std::min<uint64_t>(rest.size(), range.to - at));
    content.insert(content.end(), part.begin(), part.end());
    at += part.size();
  }
  return content;
}

// All of [from, to), which begins and ends with a block or the content.
void check_part(const Blob& alone, const Blob& cached, Range part) {
  const uint64_t block_size = alone.container().block_size;
  const uint64_t first = part.from / block_size;
  std::vector<Content> blocks;
  for (uint64_t at = part.from; at < part.to; at += block_size) {
    blocks.push_back(read(alone, {at, std::min(at + block_size, part.to)}));
  }
  const auto check = [&](const Blob& blob, Range range) {
    range.to = std::min(range.to, part.to);
    fuzz::require(read(blob, range) == expected(blocks, first, block_size, range),
                  "however it is read, the content is the same");
  };
  check(alone, part);
  check(cached, part);
  for (uint64_t at = part.from; at < part.to; at += 60'000) check(alone, {at, at + 70'000});
  // Odd pieces, three of which touch each of the larger blocks.
  const uint64_t step = std::max<uint64_t>(1001, block_size / 2 - 33);
  for (uint64_t at = part.from; at < part.to; at += step) check(cached, {at, at + step + 5});
  for (uint64_t at = part.from; at < part.to; at += 9 * step) check(cached, {at, at + 1});
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* /*count*/, char*** /*arguments*/) {
  return __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0 ? 0 : 1;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fuzz::Bounds limits(size);
  test::MemoryFileSystem fs;
  fuzz::put_file(fs, "/layer", fuzz::as_bytes(data, size));
  largest_allocation = 0;
  const auto alone = open_blob(fs, "/layer", nullptr);
  fuzz::require(largest_allocation <= size + (size_t{64} << 10),
                "opening takes no memory by a number of the file");
  const auto cached = open_blob(fs, "/layer", std::make_shared<BlockCache>(uint64_t{1} << 18));
  fuzz::require(alone.has_value() == cached.has_value(), "opens or not, cache or no cache");
  if (!alone) {
    fuzz::require_sentence(alone.error(), "/layer");
    return 0;
  }
  if ((*alone)->container().compression == Compression::none) return 0;  // tar's target looks at it
  const uint64_t block_size = (*alone)->container().block_size;
  const uint64_t end = (*alone)->size();
  fuzz::require(end <= (*alone)->container().blocks * block_size, "the blocks hold the content");
  std::byte beyond{};
  const auto nothing = (*alone)->read_at({&beyond, 1}, end);
  fuzz::require(nothing && *nothing == 0, "behind the content is nothing");
  if (end == 0) return 0;

  largest_allocation = 0;
  const uint64_t most = std::max(kMostRead, 2 * block_size);
  if (end <= 2 * most) {
    check_part(**alone, **cached, {0, end});
  } else {
    check_part(**alone, **cached, {0, most});
    check_part(**alone, **cached, {(end - most) / block_size * block_size, end});
  }
  // What is read and what it is compared with, grown by doubling, is this target's own.
  fuzz::require(largest_allocation <= size + 4 * most + 4 * block_size,
                "reading takes no memory by a number of the file");
  return 0;
}
