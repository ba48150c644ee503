// Attaching an image as a block device, and undoing that.
//
// The caller holds the image's state, and with it the lock, throughout. Whoever is killed in the
// middle leaves a state that the next attach(), detach() or recover() of the image finishes or
// undoes. Thread-safety: an ImageState is one thread's; calls with different ones may run at once.
// Errors: EOPNOTSUPP when the host
// lacks what it takes, EBUSY when the device is in use, EEXIST when the image is attached in
// another way; after a failure of attach() nothing is attached that was not before.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/base/result.h"
#include "tools/attach/attachment.h"
#include "tools/attach/state_folder.h"

namespace obd::attach {

inline constexpr const char* kDefaultStateDir = "/run/obd";

struct AttachRequest {
  std::string image;               // path of the config file, without links
  std::optional<Backend> backend;  // nullopt: nbd where the kernel has it, else fuse
  bool read_only = false;
  unsigned connections = 0;      // 0: what suits the back end
  unsigned dead_timeout = 300;   // seconds
  unsigned request_timeout = 0;  // seconds; 0: none
  std::string plugin;            // what nbdkit is told to load; empty: find it
  ServerOptions server;
};

struct Attached {
  Attachment attachment;
  bool is_new = false;  // false: it was attached before
};

// The image as a usable device.
Result<Attached> attach(ImageState& state, const AttachRequest& request);

// Makes the device's content stable and takes everything down: nothing is left when it returns.
// With `force`, also when that content cannot be made stable any more.
Result<void> detach(ImageState& state, Attachment& attachment, bool force);

// The device in the kernel, whether it is known or not; empty when there is none.
std::string find_device(const StatePaths& paths, const Attachment& attachment);

// The device shows this image's disk.
bool is_alive(const StatePaths& paths, const Attachment& attachment);

// Whether the state says that the image is mounted there by whoever attached it.
bool is_mounted_by_us(const Attachment& attachment, const std::string& directory);

// EBUSY while somebody else has mounted the device where we can see it: asked before anything is
// undone.
Result<void> refuse_foreign_mounts(const StatePaths& paths, const Attachment& attachment);

// Brings what died or was interrupted in order; one sentence on what was done, empty when there was
// nothing to do.
Result<std::string> recover(ImageState& state);

// What nbdkit is to load: beside the running program's folder as in a build tree, else by name.
std::string find_plugin();

}  // namespace obd::attach
