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

// Which image obd-mount has attached as the block device of this number, by its name in a state
// folder, whichever that is; empty: none, or somebody else has made the device.
std::string attached_image_id(dev_t device);

// The processes that serve an image of this state folder, in words for a sentence: "process 12
// (nbdkit), process 13 (obd-mount)". Empty: there is none.
std::string find_traces(const std::string& state_dir, const std::string& image_id);

}  // namespace obd::attach
