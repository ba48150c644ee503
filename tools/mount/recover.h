// What `obd-mount recover` does, for `doctor --fix`, too.

#pragma once

#include <string>

#include "core/base/result.h"

namespace obd::mount {

// Prints what it did; returns an exit status.
Result<int> recover_all(const std::string& state_dir);

}  // namespace obd::mount
