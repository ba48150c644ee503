#include "core/image/merge.h"

namespace obd {
namespace {

Result<void> check_range(const ImageConfig& config, LowerRange range) {
  if (range.first > range.last) {
    return fail(EINVAL, "{}: the range {}..{} runs backwards", config.path, range.first,
                range.last);
  }
  if (range.last >= config.lowers.size()) {
    return fail(EINVAL, "{}: there is no lower {}: the image has {}, counted from 0 at the bottom",
                config.path, range.last, config.lowers.size());
  }
  return {};
}

// The layers that are merged, as an image of their own.
ImageConfig merged_part(const ImageConfig& config, const std::optional<LowerRange>& range) {
  ImageConfig part = config;
  if (!range) return part;
  const auto first = config.lowers.begin() + static_cast<ptrdiff_t>(range->first);
  part.lowers.assign(first, first + static_cast<ptrdiff_t>(range->last - range->first + 1));
  part.upper.reset();
  return part;
}

// Beside the lock on the upper's data file, which merging with `replace` holds itself.
OpenOptions looking() { return {.access = Access::read_only, .force_share = true}; }

// The config names the new layer only if the image that it then describes opens and is as large.
Result<void> put_in_place(FileSystem& fs, const ImageConfig& config, LowerRange range,
                          const std::string& layer, uint64_t size) {
  ImageConfig next = config;
  const auto first = next.lowers.begin() + static_cast<ptrdiff_t>(range.first);
  *first = layer;
  next.lowers.erase(first + 1, first + static_cast<ptrdiff_t>(range.last - range.first + 1));
  OBD_TRY_ASSIGN(const auto after, Image::open(fs, next, looking()));
  if (after->size() != size) {
    return fail(EIO, "{}: the disk would have {} bytes with {} in place, not {}; nothing changed",
                config.path, after->size(), layer, size);
  }
  OBD_TRY_ASSIGN(const std::string name, name_in_config(fs, layer, config.path));
  auto lock = ConfigLock::take(fs, config);
  auto replaced = lock ? lock->replace_lowers(range, name)
                       : Result<void>(std::unexpected<Error>(std::move(lock).error()));
  if (!replaced && replaced.error().code == EBUSY) {
    replaced.error().message += fmt::format(" (the merged layer is {})", layer);
  }
  return replaced;
}

}  // namespace

Result<LayerInfo> merge_layers(FileSystem& fs, const ImageConfig& config,
                               const MergeOptions& options, const LayerOutput& output,
                               const ReportProgress& report) {
  const auto& range = options.range;
  if (range) OBD_TRY(check_range(config, *range));
  if (options.replace && !range) {
    return fail(EINVAL, "{}: no range of lowers says what is to be replaced", config.path);
  }
  OBD_TRY(refuse_image_file(fs, config, output.path));

  // Held to the end: whoever writes to the upper would go on with the old stack.
  std::unique_ptr<File> lock;
  if (options.replace && config.upper) {
    OBD_TRY_ASSIGN(lock, fs.open(config.upper->data, Access::read_write));
    OBD_TRY(lock->lock(LockMode::exclusive));
  }
  uint64_t size = 0;
  if (options.replace) {
    OBD_TRY(refuse_changed_config(fs, config));
    // What would refuse the whole image in the end does so before anything is written.
    OBD_TRY_ASSIGN(const auto whole, Image::open(fs, config, looking()));
    size = whole->size();
  }

  const ImageConfig part = merged_part(config, range);
  OBD_TRY_ASSIGN(const auto image, Image::open(fs, part,
                                               {.access = Access::read_only,
                                                // What the topmost of these layers cuts off, a
                                                // larger layer above them shows again.
                                                .beyond_the_end = !part.upper}));
  OBD_TRY_ASSIGN(const auto layers, image->layers());
  LayerOptions layer = output.options;
  layer.virtual_size = part.upper ? image->size() : size_of_lowers(layers);
  layer.uuid = output.uuid.value_or(options.replace ? layers.back().uuid : Uuid::random());
  layer.parent_uuid = output.parent_uuid.value_or(layers.front().parent_uuid);
  const bool at_bottom = options.at_bottom && (!range || range->first == 0);
  OBD_TRY_ASSIGN(LayerInfo merged,
                 copy_to_layer(fs, *image, {.drop_zeros = at_bottom}, output.path, layer, report));
  if (options.replace) OBD_TRY(put_in_place(fs, config, *range, output.path, size));
  return merged;
}

}  // namespace obd
