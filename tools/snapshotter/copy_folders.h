// Copying what an overlay mount of folders would show.
//
// Thread-safety: calls with different `scratch` may run at once. Errors: of mount and cp, whose own
// words go to standard error.

#pragma once

#include <string>
#include <vector>

#include "core/base/result.h"

namespace obd::snapshotter {

// Copies the content of the folders, the topmost first, into the folder `target`, with owners,
// modes, times, extended attributes, hard links and special files. `scratch` is made and removed:
// an empty folder to mount on.
Result<void> copy_folders(const std::vector<std::string>& folders, const std::string& scratch,
                          const std::string& target);

}  // namespace obd::snapshotter
