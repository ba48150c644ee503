// A FUSE mount of a disk over a regular file.
//
// Thread-safety: none, except that session() may be used as libfuse allows.

#pragma once

#include <fuse_lowlevel.h>

#include <memory>
#include <string>

#include "core/base/result.h"
#include "tools/fuse/disk.h"

namespace obd::fuse {

class Mount {
 public:
  // Mounts `disk`, which must outlive the mount, on an empty regular file, and answers the kernel's
  // first request: the file can be used from then on, and waits for somebody to read the session's
  // descriptor, which does not block. `source` is shown as the mounted device.
  static Result<std::unique_ptr<Mount>> create(Disk& disk, const std::string& path,
                                               const std::string& source);
  // Unmounts what is still mounted, even when it is in use.
  ~Mount();
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;

  [[nodiscard]] fuse_session* session() const { return session_.get(); }
  [[nodiscard]] const std::string& path() const { return path_; }

  // Unmounts when nobody has the file open: EBUSY when somebody does. What serves the session sees
  // its end.
  Result<void> unmount_if_unused();

 private:
  struct Destroyer {
    void operator()(fuse_session* session) const { fuse_session_destroy(session); }
  };
  explicit Mount(std::string path) : path_(std::move(path)) {}
  Result<void> answer_first_request(const Disk& disk);

  const std::string path_;  // absolute
  std::unique_ptr<fuse_session, Destroyer> session_;
  bool mounted_ = false;
};

}  // namespace obd::fuse
