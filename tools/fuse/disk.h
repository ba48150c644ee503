// The disk as FUSE shows it: the root of the mount, a regular file.
//
// Its size never changes. Every open is direct, so that nothing is cached twice and what one reader
// sees does not depend on the cache of another. Offsets and lengths are the kernel's, in bytes;
// reads may be unaligned, writes and zeroes must be of whole blocks of the server.
//
// Thread-safety: constant after it was made.

#pragma once

#include <fuse_lowlevel.h>
#include <sys/types.h>

#include <ctime>

#include "tools/fuse/connection.h"

namespace obd::fuse {

struct Disk {
  Export exported;
  uid_t owner = 0;
  gid_t group = 0;
  timespec since = {};       // all of the file's times
  bool initialised = false;  // the kernel has asked for the file system's parameters
};

// libfuse's callbacks; the session's user data is a Disk. All but the first call are made within
// Worker::run().
const fuse_lowlevel_ops& disk_operations();

}  // namespace obd::fuse
