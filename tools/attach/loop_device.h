// Loop devices (loop(4)): a file as a block device, with direct I/O.
//
// Each carries a mark, which the kernel keeps with it: the name of its file is no proof of
// anything, for every mount namespace may have another file of that name.
//
// Thread-safety: free of state. Errors: of the system calls, with the device's or file's path.

#pragma once

#include <sys/types.h>

#include <string>

#include "core/base/result.h"

namespace obd::attach {

// Takes a free loop device for a file; returns its path. EINVAL when the mark is longer than 63
// bytes.
Result<std::string> attach_loop(const std::string& file, const std::string& mark, bool read_only);

// The file that a loop device shows, as the kernel names it; empty when it shows none.
std::string loop_backing_file(const std::string& device);

// The mark of a loop device; empty when it shows nothing.
std::string loop_mark(const std::string& device);

// The device number of the block device that a loop device shows; 0 when it shows none.
dev_t loop_backing_device(const std::string& device);

// The loop device that shows a file of this name and has this mark: for what died before it could
// write down the device.
Result<std::string> find_loop_device(const std::string& file, const std::string& mark);

// Frees the device as soon as nobody has it open.
Result<void> detach_loop(const std::string& device);

}  // namespace obd::attach
