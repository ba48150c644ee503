// Loop devices (loop(4)): a file as a block device, with direct I/O.
//
// Thread-safety: free of state. Errors: of the system calls, with the device's or file's path.

#pragma once

#include <string>

#include "core/base/result.h"

namespace obd::attach {

// Takes a free loop device for a file; returns its path.
Result<std::string> attach_loop(const std::string& file, bool read_only);

// The file that a loop device shows, as the kernel names it; empty when it shows none.
std::string loop_backing_file(const std::string& device);

// The loop device that shows a file: for what died before it could write down the device.
Result<std::string> find_loop_device(const std::string& file);

// Frees the device as soon as nobody has it open.
Result<void> detach_loop(const std::string& device);

}  // namespace obd::attach
