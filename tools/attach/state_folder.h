// The state folder (default /run/obd): one folder for each attached image, named by a hash of its
// config file's path.
//
//   ID.lock                 held by whoever attaches, detaches or mounts the image
//   ID/attachment.json      what is attached (attachment.h)
//   ID/server.json          how its server fares
//   ID/server.pid, front_end.pid, supervisor.pid
//   ID/server.sock, server.ready, *.log
//   ID/disk                 the FUSE back end's mount point, a file
//
// Ownership: an ImageState holds the lock until it is destroyed. Thread-safety: none, processes are
// kept apart by the lock. Errors: name the file.

#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "tools/attach/attachment.h"

namespace obd::attach {

// Paths of one image's files; says nothing about what is there.
struct StatePaths {
  StatePaths(const std::string& state_dir, std::string image_id);

  std::string id;
  std::string lock;
  std::string folder;
  std::string attachment;
  std::string server_status;
  std::string server_record, front_end_record, supervisor_record;
  std::string server_log, front_end_log, supervisor_log;
  std::string server_ready;  // there when the server takes connections
  std::string socket;
  std::string disk;

 private:
  struct Canonical {
    std::string path;
  };
  StatePaths(const Canonical& dir, std::string image_id);
};

// How an image is called in every state folder; `image` is its config file's path without links.
std::string image_id(std::string_view image);
bool is_image_id(std::string_view name);

// EINVAL when this is a folder that nobody has used for state, EPERM when it is not only ours; a
// folder that is not there is fine.
Result<void> check_state_dir(const std::string& state_dir);

// What is in the old state holds then: it never says too little.
bool is_lack_of_space(const Error& error);

class ImageState {
 public:
  // Waits for the lock. `image` is the config file's path without links.
  static Result<ImageState> lock(const std::string& state_dir, const std::string& image);
  static Result<ImageState> lock_id(const std::string& state_dir, const std::string& id);
  ImageState(ImageState&& other) noexcept;
  ImageState& operator=(ImageState&&) = delete;
  ~ImageState();

  [[nodiscard]] const StatePaths& paths() const { return paths_; }

  // nullopt: nothing is attached, and nobody has begun to.
  Result<std::optional<Attachment>> load() const;
  // Makes the image's folder when there is none.
  Result<void> save(const Attachment& attachment);
  // Removes the folder with all in it: nothing is attached any more. EEXIST when it holds anything
  // that is not known to be ours: then everything stays.
  Result<void> remove();

 private:
  ImageState(StatePaths paths, int fd) : paths_(std::move(paths)), lock_fd_(fd) {}

  StatePaths paths_;
  int lock_fd_;
};

// The folder's images, those that are being attached or detached right now too.
Result<std::vector<std::string>> list_ids(const std::string& state_dir);

// Without the lock: what stands there now. nullopt: nothing.
Result<std::optional<Attachment>> look_at(const StatePaths& paths);
// Without a status file: one of a server that has never died.
Result<ServerStatus> server_status(const StatePaths& paths);

}  // namespace obd::attach
