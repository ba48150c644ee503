// What the host shows of an attached image whose state is lost: somebody has removed its folder, or
// names another one.
//
// Thread-safety: free of state. Never fails: what cannot be looked at shows nothing.

#pragma once

#include <sys/types.h>

#include <string>

namespace obd::attach {

// A loop or nbd device that has a file or a server behind it, whoever gave it that.
bool is_taken(const std::string& device);

// What there is of an image in a state folder, and whether obd-mount has attached the block device
// of that number (0: none), in words for a sentence: "process 12 (nbdkit)", "/dev/nbd0, attached by
// obd-mount". Empty: nothing.
std::string find_traces(const std::string& state_dir, const std::string& image_id, dev_t device);

}  // namespace obd::attach
