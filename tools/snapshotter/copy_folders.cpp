#include "tools/snapshotter/copy_folders.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "core/io/descriptor.h"
#include "tools/obd/program.h"

namespace obd::snapshotter {
namespace {

constexpr size_t kMaxMountOptions = 4095;  // mount(2)

Result<Descriptor> open_folder(const std::string& path) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "{}: cannot be opened", path);
  return fd;
}

// The overlay of the folders. It has no place any more when this returns, and goes away with the
// descriptor, whatever this process dies of.
Result<Descriptor> open_overlay(const std::vector<std::string>& folders,
                                const std::string& scratch) {
  // By descriptors, whose names are short: the kernel cuts off what does not fit into a page, and
  // would take what is left of the last path for the lowest folder.
  std::string options = "lowerdir=";
  std::vector<Descriptor> opened;
  for (const std::string& folder : folders) {
    OBD_TRY_ASSIGN(Descriptor fd, open_folder(folder));
    options += fmt::format("{}/proc/self/fd/{}", opened.empty() ? "" : ":", fd.get());
    opened.push_back(std::move(fd));
  }
  if (options.size() >= kMaxMountOptions) {
    return fail(EOPNOTSUPP, "{} folders are too many to be mounted over each other",
                folders.size());
  }
  ::umount2(scratch.c_str(), MNT_DETACH);  // of one that was killed in here
  if (::mkdir(scratch.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno(errno, "{}: cannot be made", scratch);
  }
  if (::mount("overlay", scratch.c_str(), "overlay", MS_RDONLY, options.c_str()) != 0) {
    return fail_errno(errno, "{}: cannot mount {} folders over each other", scratch,
                      folders.size());
  }
  auto overlay = open_folder(scratch);
  if (::umount2(scratch.c_str(), MNT_DETACH) != 0) {
    return fail_errno(errno, "{}: cannot be unmounted", scratch);
  }
  ::rmdir(scratch.c_str());
  return overlay;
}

}  // namespace

Result<void> copy_folders(const std::vector<std::string>& folders, const std::string& scratch,
                          const std::string& target) {
  OBD_TRY_ASSIGN(const Descriptor source, folders.size() == 1 ? open_folder(folders.front())
                                                              : open_overlay(folders, scratch));
  OBD_TRY_ASSIGN(const std::string cp, tool::find_program("cp"));
  OBD_TRY_ASSIGN(const int status,
                 tool::run_program({cp, "--archive", "--one-file-system", "--",
                                    fmt::format("/proc/{}/fd/{}/.", ::getpid(), source.get()),
                                    target + "/."}));
  if (status != 0) return fail(EIO, "cp failed with exit status {}", status);
  return {};
}

}  // namespace obd::snapshotter
