// Making a file system in a file with the host's own programs.
//
// Thread-safety: none. Errors: ENOENT when there is no such program; EIO when it failed (its own
// words have gone to standard error).

#pragma once

#include <string>

#include "core/base/result.h"

namespace obd::tool {

// The path of mkfs.FSTYPE, looked for in PATH and where the system keeps such programs.
Result<std::string> find_mkfs(const std::string& fstype);

// Runs the program on a file; quietly, and without asking anything, where the program has
// options for it.
Result<void> run_mkfs(const std::string& program, const std::string& fstype,
                      const std::string& file);

}  // namespace obd::tool
