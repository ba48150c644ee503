// The file system on a device: which it is, making one, mounting it.
//
// Nothing here repairs a file system. Thread-safety: none. Errors: EINVAL for what the user asked
// for, EIO with the words of mkfs or the kernel.

#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "core/base/result.h"

namespace obd::attach {

// The type as mount(8) names it; empty when nothing is recognised. Reads the device: not for one
// whose content is not to be trusted.
Result<std::string> probe_file_system(const std::string& device);

// Makes a file system of this type, unless there is one of it already. EEXIST when anything else is
// recognised on the device: nothing is overwritten.
Result<void> ensure_file_system(const std::string& device, const std::string& fstype);

struct MountRequest {
  std::string device;
  std::string directory;
  std::string fstype;
  std::vector<std::string> options;  // as mount(8) has them after -o
};

Result<void> mount_device(const MountRequest& request);

// EBUSY when it is in use.
Result<void> unmount(const std::string& directory);

// Makes what was written to the file system stable. Fails also when earlier writes failed that
// nobody has been told of: umount(2) would not tell.
Result<void> sync_file_system(const std::string& directory);

// What is mounted on a directory, the topmost of all.
struct MountedThere {
  std::string source;  // as whoever mounted it has named it: proof of nothing
  dev_t device = 0;    // the block device's number; 0: there is none, or it is not known
};
// nullopt: nothing is mounted there.
Result<std::optional<MountedThere>> mounted_on(const std::string& directory);

// What keeps content that may be hostile from harming the host: added after all other options.
std::vector<std::string> untrusted_options(const std::string& fstype);

// The options with which a file system of this type is to be mounted if nothing else is asked for.
std::vector<std::string> default_options(const std::string& fstype, bool read_only);

}  // namespace obd::attach
