// Making a file system with the host's own programs.
//
// Thread-safety: none. Errors: ENOENT when there is no such program; EIO when it failed (its own
// words have gone to standard error).

#pragma once

#include <string>
#include <vector>

#include "core/image/image.h"

namespace obd::tool {

// Refuses what cannot be the name of a type.
Result<void> check_fstype(const std::string& fstype);

// The path of mkfs.FSTYPE; refuses what check_fstype() does.
Result<std::string> find_mkfs(const std::string& fstype);

// Runs the program on a file; quietly, and without asking anything, where the program has
// options for it. `extra` are options besides those.
Result<void> run_mkfs(const std::string& program, const std::string& fstype,
                      const std::string& file, const std::vector<std::string>& extra = {});

// Lets the program fill a sparse temporary file beside the upper's data, and writes what it wrote
// into the image, whose disk is empty. `config` names its files by paths that can be opened.
Result<void> fill_with_file_system(FileSystem& fs, const std::string& program,
                                   const std::string& fstype, const ImageConfig& config,
                                   const std::vector<std::string>& extra = {});

}  // namespace obd::tool
