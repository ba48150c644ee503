#include "core/image/resize.h"

#include <vector>

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

Result<void> refuse_to_cut_data(const Image& image, uint64_t size) {
  uint64_t data_end = 0;
  OBD_TRY(image.extents(size, image.size() - size, [&](const ImageExtent& extent) {
    if (extent.kind == ExtentKind::data) data_end = extent.offset + extent.length;
    return true;
  }));
  if (data_end == 0) return {};
  return fail(EINVAL,
              "{}: a disk of {} bytes would cut off data: the last data ends at byte {}; discard "
              "what is not needed from the new end on (blkdiscard), or choose a larger size",
              image.config().path, size, data_end);
}

}  // namespace

Result<ResizeReport> resize_disk(FileSystem& fs, Image& image, uint64_t size) {
  ResizeReport done{.old_size = image.size(), .size = size};
  if (size == done.old_size) return done;
  std::vector<SectorRange> hidden;
  if (size > done.old_size && !image.config().lowers.empty()) {
    OBD_TRY_ASSIGN(const auto lowers, open_lowers(fs, image.config()));
    OBD_TRY_ASSIGN(hidden, data_between(*lowers, done.old_size, size));
  }
  OBD_TRY(image.resize_upper(size, hidden));
  for (const SectorRange& range : hidden) done.hidden += (range.to - range.from).bytes();
  return done;
}

Result<ResizeReport> resize_image(FileSystem& fs, const std::string& config_path, uint64_t size,
                                  bool may_shrink) {
  OBD_TRY_ASSIGN(const ImageConfig config, load_config(fs, config_path));
  if (!config.upper) {
    return fail(EINVAL,
                "{}: the image has no upper, and sealed layers are never changed; make a layer "
                "with another size over it (obd create --from {} --size)",
                config_path, config_path);
  }
  OBD_TRY_ASSIGN(const auto image, Image::open(fs, config, {.access = Access::read_write}));
  if (size < image->size()) {
    if (!may_shrink) {
      return fail(EINVAL, "{}: the disk has {} bytes, and {} are less: shrinking needs --force",
                  config_path, image->size(), size);
    }
    OBD_TRY(refuse_to_cut_data(*image, size));
  }
  OBD_TRY_ASSIGN(const ResizeReport done, resize_disk(fs, *image, size));
  // A disk that has the size already is left as it is.
  if (done.size != done.old_size) OBD_TRY(image->close());
  return done;
}

}  // namespace obd
