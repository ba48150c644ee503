// Running the host's own programs.
//
// Thread-safety: none. Errors: ENOENT when there is no such program; EIO when it was ended by a
// signal; EINTR when the user asked this program to stop, which ends the other one, too.

#pragma once

#include <string>
#include <vector>

#include "core/base/result.h"

namespace obd::tool {

// The path of a program, looked for in PATH and where the system keeps its own.
Result<std::string> find_program(const std::string& name);

enum class ProgramOutput { to_standard_error, discarded };

// Runs a program with nothing to read; words[0] is its path. Returns its exit status.
Result<int> run_program(const std::vector<std::string>& words,
                        ProgramOutput output = ProgramOutput::to_standard_error);

}  // namespace obd::tool
