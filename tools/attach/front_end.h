// The FUSE back end: obd-fuse shows the server's disk as a file, a loop device makes it a block
// device.
//
// Thread-safety: none. Errors: what the front end itself said is in the sentence.

#pragma once

#include "core/base/result.h"
#include "tools/attach/attachment.h"
#include "tools/attach/process.h"
#include "tools/attach/state_folder.h"

namespace obd::attach {

// obd-fuse, beside the running program or in PATH.
Result<std::string> find_front_end();

// Starts the front end of a running server; returns when the disk can be read as paths.disk.
Result<ProcessId> start_front_end(const StatePaths& paths, const Attachment& attachment);

// Unmounts paths.disk and ends the front end; success when there is none. The file is nobody's
// loop device any more.
Result<void> stop_front_end(const StatePaths& paths);

}  // namespace obd::attach
