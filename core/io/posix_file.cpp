// Positioned I/O on a host file, and the lock that keeps a second writer away.
//
// The lock is made of two open-file-description locks of the same type. The one on byte 0 excludes
// others. The kernel does not tell whose lock stands in the way (an open file description may
// belong to many processes), so the holder also locks the byte at kPidBase plus its process id, far
// behind any data; who is refused asks the kernel for a lock there and learns the pid from its
// position. The second lock never decides anything: a process that dies between the two, or that
// lives in another pid namespace, only makes the sentence less helpful.

#include "core/io/posix_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <fstream>
#include <limits>

namespace obd {
namespace {

constexpr uint64_t kMaxOffset = std::numeric_limits<off_t>::max();
constexpr off_t kPidBase = off_t{1} << 62;
constexpr off_t kPidRange = off_t{1} << 32;

// Repeats a system call for as long as a signal interrupts it.
template <typename Call>
auto retry(Call call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result == -1 && errno == EINTR);
  return result;
}

bool fits(uint64_t offset, uint64_t length) {
  return offset <= kMaxOffset && length <= kMaxOffset - offset;
}

int set_lock(int fd, short type, off_t start) {
  struct flock request{};
  request.l_type = type;
  request.l_whence = SEEK_SET;
  request.l_start = start;
  request.l_len = 1;
  return retry([&] { return fcntl(fd, F_OFD_SETLK, &request); });
}

// The pid that somebody else's lock names, if there is one.
std::optional<pid_t> find_holder(int fd) {
  struct flock request{};
  request.l_type = F_WRLCK;  // conflicts with every lock there
  request.l_whence = SEEK_SET;
  request.l_start = kPidBase;
  request.l_len = kPidRange;
  if (retry([&] { return fcntl(fd, F_OFD_GETLK, &request); }) != 0) return std::nullopt;
  if (request.l_type == F_UNLCK || request.l_start <= kPidBase) return std::nullopt;
  const off_t pid = request.l_start - kPidBase;
  if (pid > std::numeric_limits<pid_t>::max()) return std::nullopt;
  return static_cast<pid_t>(pid);
}

// " (nbdkit)", or nothing when the process has no name that can be shown.
std::string shown_name(pid_t pid) {
  std::ifstream stream(fmt::format("/proc/{}/comm", pid));
  std::string name;
  if (!std::getline(stream, name) || name.empty()) return "";
  const auto printable = [](char c) { return c >= ' ' && c <= '~'; };
  if (!std::all_of(name.begin(), name.end(), printable)) return "";
  return fmt::format(" ({})", name);
}

}  // namespace

PosixFile::~PosixFile() { ::close(fd_); }

Result<size_t> PosixFile::read_at(std::span<std::byte> out, uint64_t offset) const {
  if (offset > kMaxOffset) {
    return fail(EINVAL, "{}: cannot read at offset {}: no file is that long", path_, offset);
  }
  out = out.first(std::min<uint64_t>(out.size(), kMaxOffset - offset));
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t count = retry([&] {
      return ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    });
    if (count < 0) {
      return fail_errno(errno, "{}: cannot read {} bytes at offset {}", path_, out.size() - done,
                        offset + done);
    }
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  return done;
}

Result<void> PosixFile::write_at(std::span<const std::byte> data, uint64_t offset) {
  if (!fits(offset, data.size())) {
    return fail(EFBIG, "{}: cannot write {} bytes at offset {}: no file can be that long", path_,
                data.size(), offset);
  }
  size_t done = 0;
  while (done < data.size()) {
    const ssize_t count = retry([&] {
      return ::pwrite(fd_, data.data() + done, data.size() - done,
                      static_cast<off_t>(offset + done));
    });
    if (count <= 0) {
      return fail_errno(count == 0 ? EIO : errno, "{}: cannot write {} bytes at offset {}", path_,
                        data.size() - done, offset + done);
    }
    done += static_cast<size_t>(count);
  }
  return {};
}

Result<void> PosixFile::sync() {
  if (retry([&] { return ::fdatasync(fd_); }) != 0) {
    return fail_errno(errno, "{}: cannot sync", path_);
  }
  return {};
}

Result<void> PosixFile::truncate(uint64_t size) {
  if (size > kMaxOffset) {
    return fail(EFBIG, "{}: cannot set the size to {} bytes: no file can be that long", path_,
                size);
  }
  if (retry([&] { return ::ftruncate(fd_, static_cast<off_t>(size)); }) != 0) {
    return fail_errno(errno, "{}: cannot set the size to {} bytes", path_, size);
  }
  return {};
}

Result<void> PosixFile::punch_hole(ByteRange range) {
  if (range.length == 0) return {};  // which the kernel would refuse
  if (!fits(range.offset, range.length)) {
    return fail(EFBIG, "{}: cannot punch {} bytes at offset {}: no file can be that long", path_,
                range.length, range.offset);
  }
  const int result = retry([&] {
    return ::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                       static_cast<off_t>(range.offset), static_cast<off_t>(range.length));
  });
  if (result != 0) {
    return fail_errno(errno, "{}: cannot punch {} bytes at offset {}", path_, range.length,
                      range.offset);
  }
  return {};
}

void PosixFile::prefetch(ByteRange range) const {
  // A length of 0 would mean the rest of the file.
  if (range.length == 0 || !fits(range.offset, range.length)) return;
  // A hint that the host does not take is no error.
  static_cast<void>(::posix_fadvise(fd_, static_cast<off_t>(range.offset),
                                    static_cast<off_t>(range.length), POSIX_FADV_WILLNEED));
}

bool PosixFile::is_near(uint64_t offset) const {
  if (offset > kMaxOffset) return true;
  std::byte byte{};
  const iovec place{&byte, 1};
  const ssize_t count =
      retry([&] { return ::preadv2(fd_, &place, 1, static_cast<off_t>(offset), RWF_NOWAIT); });
  return count >= 0 || errno != EAGAIN;
}

Result<FileInfo> PosixFile::info() const {
  struct stat status{};
  if (::fstat(fd_, &status) != 0) return fail_errno(errno, "{}: cannot get its size", path_);
  FileInfo info;
  info.size = static_cast<uint64_t>(status.st_size);
  info.allocated = static_cast<uint64_t>(status.st_blocks) * 512;
  // Some network and FUSE file systems report a unit in which nothing can be placed.
  const auto block_size = static_cast<uint64_t>(std::max<blksize_t>(status.st_blksize, 0));
  if (block_size >= 512 && std::has_single_bit(block_size)) info.block_size = block_size;
  info.device = status.st_dev;
  info.inode = status.st_ino;
  // Wraps where a file system tells nonsense, and is only compared.
  info.changed = static_cast<int64_t>(static_cast<uint64_t>(status.st_ctim.tv_sec) * 1'000'000'000 +
                                      static_cast<uint64_t>(status.st_ctim.tv_nsec));
  info.links = status.st_nlink;
  info.mode = status.st_mode & 07777;
  info.owner = status.st_uid;
  info.group = status.st_gid;
  return info;
}

Result<std::optional<ByteRange>> PosixFile::next_data(uint64_t offset) const {
  // Moves the descriptor's position, which nothing here uses.
  while (offset <= kMaxOffset) {
    const off_t begin = ::lseek(fd_, static_cast<off_t>(offset), SEEK_DATA);
    if (begin < 0) {
      if (errno == ENXIO) break;
      return fail_errno(errno, "{}: cannot look for data from offset {} on", path_, offset);
    }
    const off_t end = ::lseek(fd_, begin, SEEK_HOLE);
    if (end > begin) {
      return ByteRange{static_cast<uint64_t>(begin), static_cast<uint64_t>(end - begin)};
    }
    if (end < 0 && errno != ENXIO) {
      return fail_errno(errno, "{}: cannot look for a hole from offset {} on", path_, begin);
    }
    // Somebody punched or cut the data away between the two calls.
    offset = static_cast<uint64_t>(begin);
  }
  return std::nullopt;
}

Result<void> PosixFile::lock(LockMode mode) {
  const MutexLock guard(lock_mutex_);
  if (held_lock_) return fail(EINVAL, "{}: is locked already", path_);
  const short type = mode == LockMode::exclusive ? F_WRLCK : F_RDLCK;
  if (set_lock(fd_, type, 0) != 0) {
    const int code = errno;
    if (code != EAGAIN && code != EACCES) return fail_errno(code, "{}: cannot lock", path_);
    const auto holder = find_holder(fd_);
    if (!holder) return fail(EBUSY, "{}: in use by another process: stop it first", path_);
    return fail(EBUSY,
                "{}: in use by process {}{}: stop it first (obd-mount umount, if it is attached)",
                path_, *holder, shown_name(*holder));
  }
  const pid_t pid = ::getpid();
  if (set_lock(fd_, type, kPidBase + pid) != 0) {
    const int code = errno;
    set_lock(fd_, F_UNLCK, 0);
    return fail_errno(code, "{}: cannot lock", path_);
  }
  held_lock_ = HeldLock{type, pid};
  return {};
}

Result<void> PosixFile::refresh_lock_holder() const {
  const MutexLock guard(lock_mutex_);
  const pid_t pid = ::getpid();
  if (!held_lock_ || held_lock_->pid == pid) return {};
  if (set_lock(fd_, held_lock_->type, kPidBase + pid) != 0 ||
      set_lock(fd_, F_UNLCK, kPidBase + held_lock_->pid) != 0) {
    return fail_errno(errno, "{}: cannot name process {} as the lock's holder", path_, pid);
  }
  held_lock_->pid = pid;
  return {};
}

Result<void> PosixFile::set_owner_and_mode(uid_t owner, gid_t group, mode_t mode) {
  OBD_TRY_ASSIGN(const auto now, info());
  if ((now.owner != owner || now.group != group) && ::fchown(fd_, owner, group) != 0) {
    return fail_errno(errno, "{}: cannot set the owner to {}:{}", path_, owner, group);
  }
  // Last, because a change of owner clears the set-id bits.
  if (::fchmod(fd_, mode & 07777) != 0) {
    return fail_errno(errno, "{}: cannot set the mode to {:o}", path_, mode & 07777);
  }
  return {};
}

}  // namespace obd
