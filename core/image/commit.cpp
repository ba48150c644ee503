#include "core/image/commit.h"

namespace obd {

Result<LayerInfo> commit_upper(FileSystem& fs, const ImageConfig& config, const LayerOutput& output,
                               const ReportProgress& report) {
  if (!config.upper) {
    return fail(EINVAL, "{}: the image has no upper that could be committed", config.path);
  }
  OBD_TRY(refuse_image_file(fs, config, output.path));
  OBD_TRY_ASSIGN(const auto image, Image::open(fs, config, {.access = Access::read_only}));
  OBD_TRY_ASSIGN(const auto layers, image->layers());
  const Uuid below = config.lowers.empty() ? Uuid() : layers[config.lowers.size() - 1].uuid;

  LayerOptions options = output.options;
  options.virtual_size = image->size();
  options.uuid = output.uuid.value_or(Uuid::random());
  options.parent_uuid = output.parent_uuid.value_or(below);
  return copy_to_layer(fs, *image, {.upper_only = true}, output.path, options, report);
}

}  // namespace obd
