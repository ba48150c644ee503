// Merging: one sealed layer equal to several, lying on each other.
//
// Equal means that it can take their place in any stack: what they let through it lets through,
// what they hide it hides, and its virtual size is that of the topmost one that has any. Zero
// extents are left out only where it is known that nothing lies below.

#pragma once

#include <optional>

#include "core/image/layer_copy.h"

namespace obd {

struct MergeOptions {
  std::optional<LowerRange> range = {};  // of the config's lowers; without it all, and the upper
  // Nothing lies below the config's bottom lower. True for an image, not for some of its layers.
  bool at_bottom = true;
  // Put the new layer into the config, in the place of the range. Needs a range.
  bool replace = false;
};

// Merges layers of `config`, which for layers without an image is one that need not be on disk.
// With the upper, the virtual size is the disk's. The uuid is a random one, with `replace` that of
// the range's topmost layer, so that the parent_uuid above goes on being right; the parent_uuid is
// that of the range's bottom layer; unless `output` says otherwise.
//
// With `replace`, the new layer is stable under its name before the config is replaced in one step,
// so a crash leaves the old config or the new; both are the same disk. The old layers stay where
// they are. A writer of the image must not be running.
// Errors: EBUSY when one is, naming the process; EINVAL for a range that is not there.
Result<LayerInfo> merge_layers(FileSystem& fs, const ImageConfig& config,
                               const MergeOptions& options, const LayerOutput& output,
                               const ReportProgress& report);

}  // namespace obd
