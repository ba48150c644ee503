// The NBD server of one image: nbdkit with this project's plugin on a Unix socket.
//
// Ownership: the server outlives its starter. Thread-safety: none. Errors: what the server itself
// said is in the sentence.

#pragma once

#include <string>

#include "core/base/result.h"
#include "tools/attach/attachment.h"
#include "tools/attach/process.h"
#include "tools/attach/state_folder.h"

namespace obd::attach {

// Starts the server of an attachment and returns when it takes connections. Nothing is running
// after a failure.
Result<ProcessId> start_server(const StatePaths& paths, const Attachment& attachment);

// The end of what a process has written into its log, in one line; empty when it said nothing.
std::string last_words(const std::string& log_path);

}  // namespace obd::attach
