#include "core/image/compact.h"

#include <algorithm>
#include <vector>

#include "core/base/zeros.h"

namespace obd {
namespace {

constexpr size_t kReadSize = 4 * 1024 * 1024;

Result<std::vector<ByteRange>> upper_data(const Image& image) {
  const size_t upper = image.config().lowers.size();
  std::vector<ByteRange> ranges;
  OBD_TRY(image.extents(0, image.size(), [&](const ImageExtent& extent) {
    if (extent.kind != ExtentKind::data || extent.layer != upper) return true;
    if (!ranges.empty() && ranges.back().offset + ranges.back().length == extent.offset) {
      ranges.back().length += extent.length;
    } else {
      ranges.push_back({extent.offset, extent.length});
    }
    return true;
  }));
  return ranges;
}

// Turns whole blocks of zeros in a piece of the upper's data into zero extents; returns their size.
Result<uint64_t> zero_blocks(Image& image, uint64_t block, uint64_t offset,
                             std::span<const std::byte> data) {
  uint64_t zeroed = 0;
  const uint64_t end = offset + data.size();
  for (uint64_t at = align_up(offset, block); at + block <= end;) {
    uint64_t stop = at;
    while (stop + block <= end && is_all_zero(data.subspan(stop - offset, block))) stop += block;
    if (stop > at) {
      OBD_TRY(image.trim(at, stop - at));
      zeroed += stop - at;
    }
    at = stop + block;
  }
  return zeroed;
}

Result<uint64_t> zero_all_zero_data(Image& image, uint64_t block, const ReportProgress& report) {
  OBD_TRY_ASSIGN(const auto ranges, upper_data(image));
  uint64_t total = 0;
  for (const ByteRange& range : ranges) total += range.length;
  std::vector<std::byte> buffer(std::min<uint64_t>(kReadSize, total));
  uint64_t done = 0;
  uint64_t zeroed = 0;
  for (const ByteRange& range : ranges) {
    const uint64_t end = range.offset + range.length;
    for (uint64_t at = range.offset; at < end;) {
      const uint64_t stop = std::min(end, align_down(at + kReadSize, block));
      const auto piece = std::span(buffer).first(static_cast<size_t>(stop - at));
      OBD_TRY(image.read(piece, at));
      OBD_TRY_ASSIGN(const uint64_t zeros, zero_blocks(image, block, at, piece));
      zeroed += zeros;
      at = stop;
      done += piece.size();
      OBD_TRY(report_progress(report, "reading", done, total));
    }
  }
  return zeroed;
}

}  // namespace

Result<CompactReport> compact_image(FileSystem& fs, const std::string& config_path,
                                    const ReportProgress& report) {
  OBD_TRY_ASSIGN(const ImageConfig config, load_config(fs, config_path));
  if (!config.upper) {
    return fail(EINVAL,
                "{}: the image has no upper, and sealed layers are never changed; merge "
                "them into one to leave out what is hidden",
                config_path);
  }
  OBD_TRY_ASSIGN(const auto image, Image::open(fs, config, {.access = Access::read_write}));
  OBD_TRY(image->refuse_other_names("compacting it"));
  const auto describe_upper = [&]() -> Result<LayerInfo> {
    OBD_TRY_ASSIGN(auto layers, image->layers());
    return std::move(layers.back());
  };
  CompactReport done;
  OBD_TRY_ASSIGN(done.before, describe_upper());
  OBD_TRY_ASSIGN(done.zeroed, zero_all_zero_data(*image, image->block_size(), report));
  OBD_TRY(image->flush());
  OBD_TRY_ASSIGN(const auto compaction, image->compact_upper(report));
  done.moved = compaction.moved;
  done.changed = compaction.changed || done.zeroed != 0;
  OBD_TRY(image->close());
  OBD_TRY_ASSIGN(done.after, describe_upper());
  return done;
}

}  // namespace obd
