// Cloning: a second image with the same disk, sharing every byte there is.
//
// What the source's upper holds becomes a layer that both have in common: the upper is sealed in
// place, under the name it has, and the source goes on with an empty upper of the same kind beside
// it. An upper that is empty stays as it is. The clone is a config over the same lowers, named by
// their absolute paths, with an empty upper of its own.
//
// Order, and what a crash or a failure after each step leaves:
//
//   1. the clone's upper is made        a pair of files that no config names
//   2. the source's next upper is made  another such pair, beside the source's data
//   3. the source's upper is sealed     as an interrupted seal (core/image/seal.cpp): cloning or
//                                       sealing the source again goes on from there
//   4. the source's config is replaced  a whole source, with one more lower, and no clone
//   5. the old index log is removed     the same
//   6. the clone's config is written    both
//
// So the source's disk is the same at every moment. After a failure, what was made and is named by
// no config is removed; after a crash it can be.

#pragma once

#include <string>
#include <vector>

#include "core/io/file.h"

namespace obd {

struct CloneReport {
  std::string sealed;  // the layer that the source's upper became; empty when it was empty
  uint64_t size = 0;   // of the disk, in bytes
  size_t lowers = 0;   // that both have now
  std::vector<std::string> warnings;
};

// Makes an image whose config is at `clone_path`; its two files go into the same folder, which is
// there and holds neither of the three yet (EEXIST). The caller makes the folder's own name stable.
// Errors: EBUSY when the source is open elsewhere, naming the process; EINVAL when it has no upper
// or as many lowers as an image can have.
Result<CloneReport> clone_image(FileSystem& fs, const std::string& source_path,
                                const std::string& clone_path);

}  // namespace obd
