// Verifies an image or a layer to the last byte: what check_image_or_layer() looks at, and then
// everything that can be read: each block of a compressed layer against its checksum, each extent
// of the upper. A raw layer has no checksums; of it only that it can be read is known.
//
// Errors: as check_image_or_layer(). What is found wrong is a Finding.

#pragma once

#include "core/base/progress.h"
#include "core/image/check.h"

namespace obd {

struct VerifyReport {
  CheckReport check;
  uint64_t layers = 0;      // that were read
  uint64_t bytes = 0;       // of content
  uint64_t checked = 0;     // bytes of these that have checksums, all of which fit
  uint64_t bad_blocks = 0;  // compressed blocks that are damaged
};

struct VerifyOptions {
  bool force_share = false;
  unsigned threads = 0;  // 0: as many as the host has cores
};

Result<VerifyReport> verify_image_or_layer(FileSystem& fs, const std::string& path,
                                           const VerifyOptions& options,
                                           const ReportProgress& report);

}  // namespace obd
