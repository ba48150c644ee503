// The host's names: opening, creating, renaming, removing.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "core/io/posix_file.h"

namespace obd {
namespace {

constexpr auto kBootIdPath = "/proc/sys/kernel/random/boot_id";

int open_retrying(const std::string& path, int flags, mode_t mode = 0) {
  int fd;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY, mode);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

class PosixFileSystem final : public FileSystem {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, Access access) override {
    // O_NONBLOCK: a FIFO is refused below, not waited for. It means nothing to a regular file.
    const int mode_flag = access == Access::read_write ? O_RDWR : O_RDONLY;
    const int fd = open_retrying(path, mode_flag | O_NONBLOCK);
    if (fd < 0) {
      return fail_errno(errno, "{}: cannot open for {}", path,
                        access == Access::read_write ? "writing" : "reading");
    }
    auto file = std::make_unique<PosixFile>(fd, path);
    struct stat status{};
    if (::fstat(fd, &status) != 0) return fail_errno(errno, "{}: cannot get its type", path);
    if (!S_ISREG(status.st_mode)) {
      return fail(EINVAL, "{}: is not a regular file: name a file, not a folder or a device", path);
    }
    return file;
  }

  Result<std::unique_ptr<File>> create(const std::string& path, mode_t mode) override {
    const int fd = open_retrying(path, O_RDWR | O_CREAT | O_EXCL, mode);
    if (fd < 0) return fail_errno(errno, "{}: cannot create", path);
    return std::make_unique<PosixFile>(fd, path);
  }

  Result<void> rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) {
      return fail_errno(errno, "{}: cannot rename to {}", from, to);
    }
    return {};
  }

  Result<void> rename_new(const std::string& from, const std::string& to) override {
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return {};
    // EINVAL: this host file system cannot; ENOSYS: this kernel cannot.
    if (errno == EINVAL || errno == ENOSYS) return link_and_remove(from, to);
    return fail_errno(errno, "{}: cannot rename to {}", from, to);
  }

  Result<void> remove(const std::string& path) override {
    if (::unlink(path.c_str()) != 0) return fail_errno(errno, "{}: cannot remove", path);
    return {};
  }

  Result<void> sync_directory(const std::string& path) override {
    const int fd = open_retrying(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return fail_errno(errno, "{}: cannot open the folder", path);
    int result;
    do {
      result = ::fsync(fd);
    } while (result != 0 && errno == EINTR);
    const int code = errno;
    ::close(fd);
    if (result != 0) return fail_errno(code, "{}: cannot sync the folder", path);
    return {};
  }

  Result<bool> exists(const std::string& path) override {
    struct stat status{};
    if (::stat(path.c_str(), &status) == 0) return true;
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return fail_errno(errno, "{}: cannot tell whether it exists", path);
  }

  Result<std::string> canonical(const std::string& path) override {
    const std::unique_ptr<char, decltype(&std::free)> resolved(::realpath(path.c_str(), nullptr),
                                                               &std::free);
    if (!resolved) return fail_errno(errno, "{}: cannot find the file", path);
    return std::string(resolved.get());
  }

  Result<std::string> boot_id() override {
    OBD_TRY_ASSIGN(std::string id, read_whole(*this, kBootIdPath, 4096));
    while (!id.empty() && (id.back() == '\n' || id.back() == ' ')) id.pop_back();
    if (id.empty()) return fail(EIO, "{}: is empty", kBootIdPath);
    return id;
  }

 private:
  static Result<void> link_and_remove(const std::string& from, const std::string& to) {
    if (::link(from.c_str(), to.c_str()) != 0) {
      return fail_errno(errno, "{}: cannot rename to {}", from, to);
    }
    if (::unlink(from.c_str()) != 0) {
      const int code = errno;
      ::unlink(to.c_str());  // as far as possible back to where we were
      return fail_errno(code, "{}: cannot rename to {}", from, to);
    }
    return {};
  }
};

}  // namespace

FileSystem& posix_file_system() {
  static PosixFileSystem* const kHost = new PosixFileSystem;
  return *kHost;
}

}  // namespace obd
