// The supervisor of one attached image: starts its server again when it dies, and gives the kernel
// new connections.
//
// A process of its own, so that it outlives who attached the image. It holds nothing that could be
// lost: killed at any moment and started again, it goes on.

#pragma once

#include <string>

#include "core/base/result.h"
#include "tools/attach/state_folder.h"

namespace obd::attach {

// What is known of the kernel's connections to the server that runs.
enum class Links {
  alive,    // it has just been connected
  unknown,  // nobody looked after them for a while: an nbd server is replaced, to be sure
};

Result<void> start_supervisor(const std::string& state_dir, const StatePaths& paths, Links links);
// Starts one unless it runs already.
Result<void> ensure_supervisor(const std::string& state_dir, const StatePaths& paths);
Result<void> stop_supervisor(const StatePaths& paths);
bool is_supervised(const StatePaths& paths);

// What the supervisor process does; returns when it has been asked to stop, or has given up.
Result<void> supervise(const StatePaths& paths, Links links);

}  // namespace obd::attach
