#include "tools/fuse/mount.h"

#include <fcntl.h>
#include <fuse_log.h>
#include <fuse_opt.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "tools/fuse/say.h"

namespace obd::fuse {
namespace {

constexpr int kFirstRequestMs = 30000;

// What libfuse has to say; it hands its errors to nobody else. Written while there is one thread.
std::string last_complaint;

void keep_complaint(enum fuse_log_level level, const char* format, va_list arguments) {
  if (level > FUSE_LOG_ERR) return;
  char text[512];
  std::vsnprintf(text, sizeof text, format, arguments);
  last_complaint = text;
  while (last_complaint.ends_with('\n')) last_complaint.pop_back();
}

void tell_complaint(enum fuse_log_level level, const char* format, va_list arguments) {
  if (level > FUSE_LOG_ERR) return;
  char text[512];
  std::vsnprintf(text, sizeof text, format, arguments);
  std::string_view said = text;
  if (said.ends_with('\n')) said.remove_suffix(1);
  say("{}", said);
}

Result<std::string> check_mount_point(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) {
    if (errno == ENOTCONN) {
      return fail(ENOTCONN, "{}: the mount of a process that has died is still there: unmount it",
                  path);
    }
    return fail_errno(errno, "{}: cannot be mounted on", path);
  }
  if (!S_ISREG(info.st_mode)) {
    return fail(EINVAL, "{}: is no regular file: the disk is mounted on an empty file", path);
  }
  if (info.st_size != 0) {
    return fail(EINVAL, "{}: is not empty: the mount would hide its {} bytes", path, info.st_size);
  }
  const std::unique_ptr<char, decltype(&std::free)> absolute(::realpath(path.c_str(), nullptr),
                                                             &std::free);
  if (!absolute) return fail_errno(errno, "{}: cannot be mounted on", path);
  return std::string(absolute.get());
}

// A user who is not root needs fusermount3 for it.
Result<void> run_fusermount(const std::string& path) {
  const char* const words[] = {"fusermount3", "-u", "-q", "--", path.c_str(), nullptr};
  pid_t pid = 0;
  const int code =
      ::posix_spawnp(&pid, words[0], nullptr, nullptr, const_cast<char* const*>(words), environ);
  if (code != 0) return fail_errno(code, "fusermount3: cannot run");
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return fail_errno(errno, "fusermount3: cannot wait for it");
  }
  if (status != 0) return fail(EBUSY, "{}: fusermount3 cannot unmount it", path);
  return {};
}

}  // namespace

Result<std::unique_ptr<Mount>> Mount::create(Disk& disk, const std::string& path,
                                             const std::string& source) {
  OBD_TRY_ASSIGN(std::string absolute, check_mount_point(path));
  std::unique_ptr<Mount> mount(new Mount(std::move(absolute)));

  char* options = nullptr;
  const std::string fsname = "fsname=" + source;
  const bool added = fuse_opt_add_opt_escaped(&options, fsname.c_str()) == 0 &&
                     fuse_opt_add_opt(&options, "subtype=obd-fuse") == 0 &&
                     (!disk.exported.read_only || fuse_opt_add_opt(&options, "ro") == 0);
  const std::unique_ptr<char, decltype(&std::free)> owner(options, &std::free);
  if (!added) return fail(ENOMEM, "out of memory");
  std::vector<char> program{'o', '\0'};
  std::vector<char> flag{'-', 'o', '\0'};
  char* words[] = {program.data(), flag.data(), options, nullptr};
  fuse_args arguments = FUSE_ARGS_INIT(3, words);

  fuse_set_log_func(keep_complaint);
  mount->session_.reset(
      fuse_session_new(&arguments, &disk_operations(), sizeof(fuse_lowlevel_ops), &disk));
  if (!mount->session_) return fail(EIO, "{}: libfuse: {}", path, last_complaint);
  if (fuse_session_mount(mount->session(), mount->path_.c_str()) != 0) {
    return fail(EIO, "{}: cannot mount: {}", path, last_complaint);
  }
  mount->mounted_ = true;
  fuse_set_log_func(tell_complaint);
  OBD_TRY(mount->answer_first_request(disk));
  return mount;
}

Result<void> Mount::answer_first_request(const Disk& disk) {
  const int fd = fuse_session_fd(session());
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
    return fail_errno(errno, "/dev/fuse: cannot make it non-blocking");
  }
  fuse_buf buffer{};
  int status = 0;
  while (!disk.initialised && (status >= 0 || status == -EINTR)) {
    pollfd item{.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&item, 1, kFirstRequestMs) == 0) break;
    status = fuse_session_receive_buf(session(), &buffer);
    if (status > 0) fuse_session_process_buf(session(), &buffer);
    if (status == 0) break;
  }
  std::free(buffer.mem);
  if (!disk.initialised) return fail(EIO, "{}: the kernel does not take up the mount", path_);
  return {};
}

Mount::~Mount() {
  if (mounted_) fuse_session_unmount(session());
}

Result<void> Mount::unmount_if_unused() {
  if (::umount2(path_.c_str(), UMOUNT_NOFOLLOW) == 0) return {};
  if (errno == EPERM) return run_fusermount(path_);
  if (errno == EBUSY) return fail(EBUSY, "{}: is in use", path_);
  return fail_errno(errno, "{}: cannot unmount", path_);
}

}  // namespace obd::fuse
