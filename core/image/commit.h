// Committing: a new, dense sealed layer from an image's upper alone.
//
// The layer holds the upper's extents in order of the disk, its zero extents included, as they hide
// what is in the layers below. Nothing of the image changes.

#pragma once

#include "core/image/layer_copy.h"

namespace obd {

// The layer's virtual size is the disk's, its uuid a random one and its parent_uuid that of the
// topmost lower, unless `output` says otherwise. The image is locked against writers meanwhile.
// Errors: EBUSY when a writer has it open, naming the process; EINVAL when it has no upper.
Result<LayerInfo> commit_upper(FileSystem& fs, const ImageConfig& config, const LayerOutput& output,
                               const ReportProgress& report);

}  // namespace obd
