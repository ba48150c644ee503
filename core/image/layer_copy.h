// Writing what layers of an image hold into one new sealed layer: what committing and merging
// share.
//
// Zeros take no space in it: of the data, whatever is all zero within one block of 4 KiB of the
// disk (the part of the block that the layers hold) becomes a zero extent.

#pragma once

#include <optional>
#include <string>

#include "core/base/progress.h"
#include "core/image/image.h"
#include "core/layer/layer_writer.h"

namespace obd {

// The layer to make. It appears under its path when it is whole and stable; an existing file there
// is replaced only if options.overwrite says so, and never if it is a file of the image.
struct LayerOutput {
  std::string path;
  LayerOptions options = {};             // virtual_size, uuid and parent_uuid are overwritten
  std::optional<Uuid> uuid = {};         // without it: what the operation says
  std::optional<Uuid> parent_uuid = {};  // without it: what the operation says
};

struct LayerChoice {
  // Only what the upper itself holds, not what shows through it.
  bool upper_only = false;
  // For a layer that nothing will ever lie below: zeros are left out, as holes read the same there.
  bool drop_zeros = false;
};

// The path, virtual_size, uuid and parent_uuid of `output` are final. The new layer is opened and
// verified; its description holds warnings, for instance of more extents than overlaybd opens.
Result<LayerInfo> copy_to_layer(FileSystem& fs, const Image& image, const LayerChoice& choice,
                                const std::string& path, const LayerOptions& options,
                                const ReportProgress& report);

}  // namespace obd
