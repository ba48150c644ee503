// Compacting: giving back the space that dead data holds in an image's upper.
//
//   1. live data that is all zero becomes zero extents, in whole blocks
//   2. an append upper: what is live moves together and the data file is cut; a sparse upper:
//      blocks that nothing names are punched
//   3. the index log is written anew when it holds dead records
//
// The upper keeps its files, names and uuid. Every step leaves, after a crash or a failure, the
// same disk: 1 is writing zeros over zeros, core/layer/writable_layer_compact.cpp argues for the
// others. No temporary file is needed but a new log, so it works on a host that is nearly full.

#pragma once

#include <string>

#include "core/base/progress.h"
#include "core/image/image.h"

namespace obd {

struct CompactReport {
  bool changed = false;     // false: there was nothing to give back
  uint64_t zeroed = 0;      // bytes of data that were zeros
  uint64_t moved = 0;       // bytes of data that were copied to another place in the file
  LayerInfo before, after;  // the upper
};

// Errors: EBUSY when the image is open elsewhere, naming the process; EINVAL without an upper.
Result<CompactReport> compact_image(FileSystem& fs, const std::string& config_path,
                                    const ReportProgress& report);

}  // namespace obd
