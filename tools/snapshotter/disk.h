// The disks of snapshots as the host sees them: images attached, mounted, and taken down again, by
// the library that obd-mount is made of.
//
// An image is known by the path of its config file. What is attached outlives this process; calls
// may be repeated, and go on from whatever a killed one has left.
//
// Thread-safety: all functions may be called from any thread; those for one image wait for each
// other. Errors: EBUSY when somebody else uses the disk, with a sentence that names who; else those
// of tools/attach.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "tools/snapshotter/config.h"

namespace obd::snapshotter {

struct DiskRequest {
  std::string image;  // path of the config file
  bool read_only = false;
  uint64_t quota = 0;  // bytes that the writable layer may take; 0: no limit
};

// The file system on a disk, as far as a label has told; what it has not is looked for.
struct FileSystemHint {
  std::string type;
  std::vector<std::string> mount_options;
  std::vector<std::string> mkfs_options;
};

struct DeviceMount {
  std::string device;
  std::string fstype;
  std::vector<std::string> options;
};

enum class Release {
  keep_content,     // everything written is stable, or it is an error
  discard_content,  // nobody wants it any more: a server that hangs is killed
};

class Disks {
 public:
  explicit Disks(const Config& config) : config_(config) {}

  // The image as a device, and how a client is to mount that.
  [[nodiscard]] Result<DeviceMount> attach(const DiskRequest& request,
                                           const FileSystemHint& hint) const;

  // Mounts the image on a directory.
  Result<void> mount(const DiskRequest& request, const std::string& directory,
                     const FileSystemHint& hint) const;

  // Unmounts what mount() has mounted, and leaves the device.
  Result<void> unmount(const std::string& image, const std::string& directory) const;

  // EBUSY when somebody works on the disk without having mounted it, as a virtual machine does:
  // mounting it here, too, would change it under his hands.
  [[nodiscard]] Result<void> refuse_raw_use(const std::string& image) const;

  // From now on nobody writes to a disk that is mounted on the directory, whoever else has mounted
  // it; all that was written has reached the device. EBUSY when a file is open for writing.
  Result<void> freeze(const std::string& directory) const;
  // Takes that back.
  Result<void> thaw(const std::string& directory) const;

  // Unmounts and detaches; success when it is not attached.
  Result<void> release(const std::string& image, Release content) const;

  // Puts in order what a dead snapshotter, or the host's end, has left of the images below a
  // folder. Troubles with single ones are logged. Returns the images that are attached. EINVAL,
  // EPERM: the state folder is none.
  [[nodiscard]] Result<std::vector<std::string>> recover(const std::string& folder) const;

  // How many images below a folder are attached.
  [[nodiscard]] uint64_t count(const std::string& folder) const;

 private:
  const Config& config_;
};

}  // namespace obd::snapshotter
