// A wrong image may be wrong, never dangerous: whatever its files hold, it opens or is refused with
// a sentence, and all of it can be read, written, checked, committed and compacted, within bounds.
// What was written to one that opens is there when it is opened again. No lower is ever changed.
//
// Input: image_recipe.h. Byte 6: what is done besides reading and writing; 7: seed of the writes.

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <vector>

#include "core/image/check.h"
#include "core/image/commit.h"
#include "core/image/compact.h"
#include "core/image/image.h"
#include "core/image/merge.h"
#include "core/image/update.h"
#include "core/image/verify.h"
#include "test/fuzz/bounds.h"
#include "test/fuzz/fuzz.h"
#include "test/fuzz/image_recipe.h"
#include "test/support/random.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using namespace obd;
using test::Random;
using Content = std::vector<std::byte>;

constexpr uint64_t kChunk = uint64_t{1} << 18;
// What is read of a disk whose extents name the same bytes over and over.
constexpr uint64_t kMostRead = uint64_t{4} << 20;
constexpr uint64_t kMostCopied = uint64_t{4} << 20;
constexpr size_t kMostChanges = 24;

void require_reason(const Error& error) {
  fuzz::require(error.code > 0 && !error.message.empty(), "an error has an errno and a sentence");
}

// All of the disk; of a large one all data. Returns how many bytes of data it has.
uint64_t read_all(const Image& image) {
  uint64_t data = 0;
  uint64_t end = 0;
  Content chunk(kChunk);
  const auto visited = image.extents(0, image.size(), [&](const ImageExtent& extent) {
    fuzz::require(extent.offset == end && extent.length > 0, "extents follow each other");
    end = extent.offset + extent.length;
    const bool is_data = extent.kind == ExtentKind::data;
    const uint64_t most = data < kMostRead ? (is_data ? kMostRead - data : kChunk) : kSectorSize;
    for (uint64_t at = 0; at < std::min(extent.length, most);) {
      const auto part = std::span(chunk).first(std::min({kChunk, extent.length - at, most - at}));
      if (const auto read = image.read(part, extent.offset + at); !read) {
        require_reason(read.error());
      } else {
        fuzz::require(is_data || std::ranges::all_of(part, [](auto b) { return b == std::byte{}; }),
                      "what is no data reads as zeros");
      }
      at += part.size();
    }
    if (is_data) data += extent.length;
    return true;
  });
  fuzz::require(visited.has_value() && end == image.size(), "the extents cover the disk");
  return data;
}

// Both ends of the disk; empty when they cannot be read.
Content read_ends(const Image& image) {
  const uint64_t length = std::min(image.size(), kChunk);
  Content content(2 * length);
  if (!image.read(std::span(content).first(length), 0) ||
      !image.read(std::span(content).last(length), image.size() - length)) {
    content.clear();
  }
  return content;
}

// Any request may be refused: a lower may be damaged, and the disk larger than what its layers can
// address.
void change(Image& image, Random& random) {
  const uint64_t size = image.size();
  const auto done = [&](const Result<void>& result) {
    if (!result) require_reason(result.error());
  };
  for (uint64_t steps = random.between(1, 10); steps > 0; --steps) {
    const uint64_t length = std::min(size, random.between(0, 3 * kBlockSize));
    uint64_t offset = random.below(std::min(size - length, kChunk - length) + 1);
    if (random.percent(30)) offset = size - length - offset;
    switch (random.below(6)) {
      case 0:
        done(image.zero(offset, length, {.fua = random.percent(20), .may_trim = false}));
        break;
      case 1:
        done(image.trim(offset, length));
        break;
      case 2:
        done(image.flush());
        break;
      case 3:
        done(image.zero(0, std::min(size, uint64_t{1} << random.below(33))));
        break;
      default:
        done(image.write(Content(length, static_cast<std::byte>(random.next())), offset));
    }
  }
}

// Returns how much data the image has, or nothing when it does not open.
std::optional<uint64_t> use(test::MemoryFileSystem& fs, const ImageConfig& config, Random& random) {
  uint64_t data = 0;
  {
    const auto image = Image::open(fs, config, {.access = Access::read_only});
    if (!image) {
      require_reason(image.error());
    } else {
      (void)(*image)->layers();
      (void)(*image)->prefetch(0, (*image)->size());
      data = read_all(**image);
    }
  }
  Content after;
  {
    const auto image = Image::open(fs, config, {.reclaim = {.on = random.percent(50)}});
    if (!image) {
      require_reason(image.error());
      return std::nullopt;
    }
    if (!(*image)->writable() || (*image)->size() == 0) return data;
    change(**image, random);
    if (random.percent(20)) (void)(*image)->reclaim_now();
    after = read_ends(**image);
    const auto flushed = (*image)->flush();
    if (random.percent(50) && flushed) {
      fuzz::require((*image)->close().has_value(), "what was flushed can be closed");
    }
  }
  const auto again = Image::open(fs, config, {});
  fuzz::require(again.has_value(), "what was written opens again");
  if (!after.empty()) fuzz::require(read_ends(**again) == after, "what was written is there");
  return std::max(data, read_all(**again));
}

void use_tools(test::MemoryFileSystem& fs, const ImageConfig& config, unsigned choice,
               uint64_t data) {
  const bool small = data <= kMostCopied;
  switch (choice % 8) {
    case 0:
      (void)check_image_or_layer(fs, config.path, false);
      break;
    case 1:
      (void)verify_image_or_layer(fs, config.path, {.threads = 1}, nullptr);
      break;
    case 2:
      if (small && config.upper) (void)commit_upper(fs, config, {.path = "/out"}, nullptr);
      break;
    case 3:
      if (small) (void)merge_layers(fs, config, {.at_bottom = true}, {.path = "/out"}, nullptr);
      break;
    case 4:
      if (small && config.upper) (void)compact_image(fs, config.path, nullptr);
      break;
    case 5:
      if (small && config.upper) (void)open_for_update(fs, config);
      break;
    case 6:
      if (small && config.upper) (void)seal_image(fs, config.path);
      break;
    default:
      break;
  }
}

Content read_file(FileSystem& fs, const std::string& path) {
  const auto file = fs.open(path, Access::read_only);
  Content content((*file)->info()->size);
  (void)(*file)->read_at(content, 0);
  return content;
}

}  // namespace

// Whole changes come, go and are put elsewhere, as well as bytes.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  Random random(seed);
  const size_t most = std::min(max_size, fuzz::kRecipeSize + kMostChanges * fuzz::kChangeSize);
  if (size < fuzz::kRecipeSize || most < fuzz::kRecipeSize || random.percent(40)) {
    return LLVMFuzzerMutate(data, size, most);
  }
  const size_t changes = (size - fuzz::kRecipeSize) / fuzz::kChangeSize;
  const size_t at = fuzz::kRecipeSize + random.below(changes + 1) * fuzz::kChangeSize;
  if (random.percent(60) && size + fuzz::kChangeSize <= most) {
    std::memmove(data + at + fuzz::kChangeSize, data + at, size - at);
    random.fill(std::as_writable_bytes(std::span(data + at, fuzz::kChangeSize)));
    return size + fuzz::kChangeSize;
  }
  if (random.percent(50) && at + fuzz::kChangeSize <= size) {
    std::memmove(data + at, data + at + fuzz::kChangeSize, size - at - fuzz::kChangeSize);
    return size - fuzz::kChangeSize;
  }
  random.fill(std::as_writable_bytes(std::span(data, fuzz::kRecipeSize)));
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < fuzz::kRecipeSize) return 0;
  test::MemoryFileSystem fs("first-boot");
  const fuzz::MadeImage made = fuzz::make_image(fs, {data, size});
  std::vector<Content> lowers;
  for (const std::string& path : made.config.lowers) lowers.push_back(read_file(fs, path));
  {
    const fuzz::Bounds limits(made.file_bytes);
    Random random(data[7]);
    // These only look.
    if (data[6] % 2 == 1) use_tools(fs, made.config, data[6] / 2 % 2, 0);
    const auto used = use(fs, made.config, random);
    if (data[6] % 2 == 0) use_tools(fs, made.config, data[6] / 2, used.value_or(0));
  }
  for (size_t i = 0; i < lowers.size(); ++i) {
    fuzz::require(read_file(fs, made.config.lowers[i]) == lowers[i], "a lower never changes");
  }
  return 0;
}
