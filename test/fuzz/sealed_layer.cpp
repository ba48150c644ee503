// A layer that opens has a sorted, disjoint index, and each of its extents can be read, unless it
// is compressed and a block is damaged.

#include <algorithm>
#include <cerrno>
#include <vector>

#include "core/image/image.h"
#include "core/layer/sealed_layer.h"
#include "test/fuzz/bounds.h"
#include "test/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace obd;
  const fuzz::Bounds limits(size);
  test::MemoryFileSystem fs;
  fuzz::put_file(fs, "/layer", fuzz::as_bytes(data, size));
  const auto layer = SealedLayer::open(fs, "/layer");
  if (!layer) {
    fuzz::require_sentence(layer.error(), "/layer");
    return 0;
  }
  ImageConfig config;
  config.path = "/config.v1.json";
  config.lowers = {"/layer"};
  const auto image = Image::open(fs, config, {.access = Access::read_only});
  fuzz::require(image.has_value(), "a layer that opens is an image");
  const bool compressed = (*layer)->blob().container().compression != Compression::none;
  Sectors end;
  const auto index = (*layer)->take_index();
  fuzz::require(index.has_value(), "a layer that opens has an index");
  for (const lsmt::PackedEntry& entry : *index) {
    fuzz::require(entry.offset() >= end && entry.length() > Sectors(), "the index is in order");
    end = entry.end();
    const uint64_t offset = entry.offset().bytes();
    if (offset >= (*image)->size()) continue;
    std::vector<std::byte> content(
        std::min<uint64_t>({entry.length().bytes(), (*image)->size() - offset, 1U << 20}));
    const auto result = (*image)->read(content, offset);
    if (result) continue;
    fuzz::require(compressed && result.error().code == EIO, "an extent can be read");
    fuzz::require_sentence(result.error(), "/layer");
  }
  return 0;
}
