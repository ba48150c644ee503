#include "core/image/resize.h"

#include <vector>

#include "core/image/image.h"

namespace obd {
namespace {

// All that the lowers hold, whatever size the layer on top of them gives the disk.
Result<std::unique_ptr<Image>> open_lowers(FileSystem& fs, const ImageConfig& config) {
  ImageConfig lowers = config;
  lowers.upper.reset();
  return Image::open(fs, lowers, {.access = Access::read_only, .beyond_the_end = true});
}

// Where the lowers hold data within [from, to).
Result<std::vector<SectorRange>> data_between(const Image& lowers, uint64_t from, uint64_t to) {
  std::vector<SectorRange> ranges;
  to = std::min(to, lowers.size());
  if (from >= to) return ranges;
  OBD_TRY(lowers.extents(from, to - from, [&](const ImageExtent& extent) {
    if (extent.kind != ExtentKind::data) return true;
    const Sectors begin = Sectors::floor(extent.offset);
    const Sectors end = Sectors::floor(extent.offset + extent.length);
    if (!ranges.empty() && ranges.back().to == begin) {
      ranges.back().to = end;
    } else {
      ranges.push_back({begin, end});
    }
    return true;
  }));
  return ranges;
}

Result<void> refuse_to_cut_data(FileSystem& fs, const ImageConfig& config, uint64_t size) {
  // The caller holds the lock.
  OBD_TRY_ASSIGN(const auto image,
                 Image::open(fs, config, {.access = Access::read_only, .force_share = true}));
  uint64_t data_end = 0;
  OBD_TRY(image->extents(size, image->size() - size, [&](const ImageExtent& extent) {
    if (extent.kind == ExtentKind::data) data_end = extent.offset + extent.length;
    return true;
  }));
  if (data_end == 0) return {};
  return fail(EINVAL,
              "{}: a disk of {} bytes would cut off data: the last data ends at byte {}; discard "
              "what is not needed from the new end on (blkdiscard), or choose a larger size",
              config.path, size, data_end);
}

}  // namespace

Result<ResizeReport> resize_image(FileSystem& fs, const std::string& config_path, uint64_t size,
                                  bool may_shrink) {
  OBD_TRY_ASSIGN(const ImageConfig config, load_config(fs, config_path));
  if (!config.upper) {
    return fail(EINVAL,
                "{}: the image has no upper, and sealed layers are never changed; make a layer "
                "with another size over it (obd create --from {} --size)",
                config_path, config_path);
  }
  std::unique_ptr<Image> lowers;
  WritableLayer::Options options;
  if (!config.lowers.empty()) {
    OBD_TRY_ASSIGN(lowers, open_lowers(fs, config));
    OBD_TRY_ASSIGN(const auto layers, lowers->layers());
    options.lowers_size = size_of_lowers(layers);
  }
  OBD_TRY_ASSIGN(const auto upper,
                 WritableLayer::open(fs, config.upper->data, config.upper->index, options));
  ResizeReport done{.old_size = upper->virtual_size(), .size = size};
  if (size == done.old_size) return done;

  std::vector<SectorRange> hidden;
  if (size < done.old_size) {
    if (!may_shrink) {
      return fail(EINVAL, "{}: the disk has {} bytes, and {} are less: shrinking needs --force",
                  config_path, done.old_size, size);
    }
    OBD_TRY(refuse_to_cut_data(fs, config, size));
  } else if (lowers) {
    OBD_TRY_ASSIGN(hidden, data_between(*lowers, done.old_size, size));
  }
  OBD_TRY(upper->resize(size, hidden));
  OBD_TRY(upper->close());
  for (const SectorRange& range : hidden) done.hidden += (range.to - range.from).bytes();
  return done;
}

}  // namespace obd
