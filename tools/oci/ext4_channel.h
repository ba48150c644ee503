// The io_manager through which libext2fs reaches a BlockCache.
//
// Thread-safety: the manager itself any; a channel as the cache. Errors: libext2fs knows numbers
// alone, so the sentence is kept aside in ChannelTarget::error.

#pragma once

#include <ext2fs/ext2fs.h>

#include <optional>
#include <string>

#include "core/base/result.h"
#include "tools/oci/block_cache.h"

namespace obd::oci {

struct ChannelTarget {
  BlockCache& cache;
  std::optional<Error> error = {};  // the first one
  bool closing = false;             // true: flushes reach the disk
};

// What ext2fs_open() is given as the name of the device, and understood by the manager below. The
// target stays where it is as long as the file system is open.
std::string channel_name(ChannelTarget& target);

io_manager channel_manager();

}  // namespace obd::oci
