#include "tools/fuse/disk.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "tools/fuse/worker.h"

namespace obd::fuse {
namespace {

// The kernel may queue so many asynchronous requests; a loop device alone has 128.
constexpr unsigned kMaxBackground = 512;
constexpr double kForever = 1e9;  // seconds: nothing about the disk changes

Disk& disk_of(fuse_req_t caller) { return *static_cast<Disk*>(fuse_req_userdata(caller)); }

bool is_whole(const Disk& disk, uint64_t offset, uint64_t length) {
  return (offset | length) % disk.exported.minimum_block == 0;
}

void init(void* user_data, fuse_conn_info* conn) {
  auto& disk = *static_cast<Disk*>(user_data);
  // A worker keeps the data of a write in memory until the server has it for good: nothing to
  // splice.
  conn->want &= ~unsigned{FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE};
  // So that O_TRUNC comes as a change of size, to be refused.
  conn->want &= ~unsigned{FUSE_CAP_ATOMIC_O_TRUNC};
  conn->want |= conn->capable & FUSE_CAP_ASYNC_DIO;
  conn->max_write = static_cast<unsigned>(
      std::min<size_t>(RequestPool::kMaxData, disk.exported.maximum_block / 4096 * 4096));
  conn->max_background = kMaxBackground;
  conn->congestion_threshold = kMaxBackground;
  disk.initialised = true;
}

struct stat attributes(const Disk& disk) {
  struct stat attr{};
  attr.st_ino = FUSE_ROOT_ID;
  attr.st_mode = S_IFREG | (disk.exported.read_only ? 0400 : 0600);
  attr.st_nlink = 1;
  attr.st_uid = disk.owner;
  attr.st_gid = disk.group;
  attr.st_size = static_cast<off_t>(disk.exported.size);
  attr.st_blocks = static_cast<blkcnt_t>(disk.exported.size / 512);
  attr.st_blksize = static_cast<blksize_t>(disk.exported.preferred_block);
  attr.st_atim = attr.st_mtim = attr.st_ctim = disk.since;
  return attr;
}

void getattr(fuse_req_t caller, fuse_ino_t, fuse_file_info*) {
  const struct stat attr = attributes(disk_of(caller));
  fuse_reply_attr(caller, &attr, kForever);
}

// Only what changes nothing: a disk is neither truncated nor given away.
void setattr(fuse_req_t caller, fuse_ino_t inode, struct stat* attr, int to_set,
             fuse_file_info* file) {
  const bool same_size = to_set == FUSE_SET_ATTR_SIZE &&
                         static_cast<uint64_t>(attr->st_size) == disk_of(caller).exported.size;
  if (!same_size) {
    fuse_reply_err(caller, EPERM);
    return;
  }
  getattr(caller, inode, file);
}

// What fuse_reply_open() would send, and a flag that libfuse 3.14 does not know: without it, each
// write would exclude all others until it has been sent.
void open(fuse_req_t caller, fuse_ino_t, fuse_file_info*) {
  fuse_open_out out{};
  out.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES | FOPEN_NOFLUSH;
  fuse_reply_buf(caller, reinterpret_cast<const char*>(&out), sizeof out);
}

void read(fuse_req_t caller, fuse_ino_t, size_t size, off_t offset, fuse_file_info*) {
  const Disk& disk = disk_of(caller);
  const auto begin = static_cast<uint64_t>(offset);
  if (offset < 0 || begin >= disk.exported.size || size == 0) {
    fuse_reply_buf(caller, nullptr, 0);
    return;
  }
  const uint64_t length =
      std::min<uint64_t>({size, disk.exported.size - begin, RequestPool::kMaxData});
  Worker::current().read(caller, begin, static_cast<uint32_t>(length));
}

// As a block device does it: up to the end, and beyond there is no space.
void write(fuse_req_t caller, fuse_ino_t, const char* data, size_t size, off_t offset,
           fuse_file_info*) {
  const Disk& disk = disk_of(caller);
  const auto begin = static_cast<uint64_t>(offset);
  if (size == 0) {
    fuse_reply_write(caller, 0);
  } else if (offset < 0 || begin >= disk.exported.size) {
    fuse_reply_err(caller, ENOSPC);
  } else {
    const uint64_t length =
        std::min<uint64_t>({size, disk.exported.size - begin, RequestPool::kMaxData});
    if (!is_whole(disk, begin, length)) {
      fuse_reply_err(caller, EINVAL);
    } else {
      Worker::current().write(caller, data, begin, static_cast<uint32_t>(length));
    }
  }
}

// Without NBD's flush, the server keeps nothing that could be flushed.
void fsync(fuse_req_t caller, fuse_ino_t, int, fuse_file_info*) {
  if (disk_of(caller).exported.can_flush) {
    Worker::current().flush(caller);
  } else {
    fuse_reply_err(caller, 0);
  }
}

// A hole that is punched must read as zeros, and a loop device relies on it: it punches to write
// zeroes, too. NBD's trim promises nothing of what is read afterwards. Its write zeroes does, and
// gives the space back unless told not to, which is what tells ZERO_RANGE from PUNCH_HOLE.
void fallocate(fuse_req_t caller, fuse_ino_t, int mode, off_t offset, off_t length,
               fuse_file_info*) {
  const Disk& disk = disk_of(caller);
  const bool punch = mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
  const bool zero = (mode & ~FALLOC_FL_KEEP_SIZE) == FALLOC_FL_ZERO_RANGE;
  if ((!punch && !zero) || !disk.exported.can_zero) {
    fuse_reply_err(caller, EOPNOTSUPP);
    return;
  }
  if (offset < 0 || length <= 0 || length > std::numeric_limits<off_t>::max() - offset) {
    fuse_reply_err(caller, EINVAL);
    return;
  }
  const auto begin = static_cast<uint64_t>(offset);
  uint64_t count = static_cast<uint64_t>(length);
  if (begin + count > disk.exported.size) {
    if (zero && (mode & FALLOC_FL_KEEP_SIZE) == 0) {
      fuse_reply_err(caller, ENOSPC);
      return;
    }
    count = begin < disk.exported.size ? disk.exported.size - begin : 0;
  }
  if (count == 0) {
    fuse_reply_err(caller, 0);
  } else if (!is_whole(disk, begin, count)) {
    fuse_reply_err(caller, EINVAL);
  } else {
    Worker::current().zero(caller, begin, count, /*keep_space=*/zero);
  }
}

fuse_lowlevel_ops make_operations() {
  fuse_lowlevel_ops ops{};
  ops.init = init;
  ops.getattr = getattr;
  ops.setattr = setattr;
  ops.open = open;
  ops.read = read;
  ops.write = write;
  ops.fsync = fsync;
  ops.fallocate = fallocate;
  return ops;
}

}  // namespace

const fuse_lowlevel_ops& disk_operations() {
  static const fuse_lowlevel_ops operations = make_operations();
  return operations;
}

}  // namespace obd::fuse
