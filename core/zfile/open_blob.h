// Opens the container that a sealed layer is stored in, by what is in the file, never by its name.
//
// A file that starts with the magic number of LSMT or ZFile is what it says; one that has tar's is
// unwrapped, and its member may be a ZFile. All else is taken as it stands, and LSMT's reader says
// what is wrong with it.
//
// Ownership: the blob takes the file, open for reading, and shares the cache, which may be null
// (nothing is kept).
// Thread-safety: may be called from many threads. Errors: those of opening and reading the file;
// EINVAL and ENOTSUP for a malformed or unknown container, naming the file, the part and the field.

#pragma once

#include <memory>
#include <string>

#include "core/io/blob.h"
#include "core/zfile/block_cache.h"

namespace obd {

Result<std::unique_ptr<Blob>> open_blob(std::unique_ptr<File> file,
                                        std::shared_ptr<BlockCache> cache);
Result<std::unique_ptr<Blob>> open_blob(FileSystem& fs, const std::string& path,
                                        std::shared_ptr<BlockCache> cache);

}  // namespace obd
