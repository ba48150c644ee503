// The steps of sealing that seal_image() and cloning share; seal.cpp argues for their order.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/image/image.h"

namespace obd {

// EINVAL when the image has as many lowers as it can have.
Result<void> refuse_full_stack(const ImageConfig& config);

// Seals `upper`, which is the config's, opened for writing, and rewrites the config: the data file
// becomes the topmost lower, and `next`, written as given, the upper. Removes the old index log.
// Finishes a seal that a crash interrupted. The files of `next` are stable. Returns warnings.
Result<std::vector<std::string>> seal_upper(FileSystem& fs, const ImageConfig& config,
                                            WritableLayer& upper,
                                            const std::optional<UpperConfig>& next);

}  // namespace obd
