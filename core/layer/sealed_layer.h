// A sealed layer, in whatever blob it is stored: opened read-only, checked whole, immutable.
//
// Ownership: owns its blob, shares the block cache. Thread-safety: const after open; share freely.
// Errors: EINVAL for a malformed layer (file, field, value); ENOTSUP for a container with features
// that this version does not read; EBADMSG for compressed blocks that are damaged; EIO when the
// file is shorter than when it was opened.

#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/format/lsmt.h"
#include "core/index/extent.h"
#include "core/io/blob.h"
#include "core/zfile/block_cache.h"

namespace obd {

class SealedLayer {
 public:
  // The cache is for blobs that are compressed; null keeps nothing, which is enough for a look at
  // the index.
  static Result<std::unique_ptr<SealedLayer>> open(FileSystem& fs, const std::string& path,
                                                   std::shared_ptr<BlockCache> cache = nullptr);

  [[nodiscard]] const std::string& path() const { return blob_->path(); }
  [[nodiscard]] const lsmt::Header& trailer() const { return trailer_; }
  [[nodiscard]] const Blob& blob() const { return *blob_; }

  // What a person should know although the layer opens: unknown flag bits, entries past the end of
  // the virtual disk, more entries than overlaybd opens.
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }

  // The extents, sorted and disjoint, numbered with `layer`. Moves them out: the layer itself does
  // not need them, its stack's merged index does.
  [[nodiscard]] std::vector<Extent> take_extents(LayerNumber layer);

  [[nodiscard]] size_t extent_count() const { return extent_count_; }
  [[nodiscard]] Sectors data_sectors() const { return data_sectors_; }
  [[nodiscard]] Sectors zero_sectors() const { return zero_sectors_; }

 private:
  SealedLayer() = default;

  Result<void> load_index();
  Result<void> check_entry(uint64_t number, const lsmt::Entry& entry, Sectors previous_end,
                           Sectors data_end) const;

  std::unique_ptr<Blob> blob_;
  lsmt::Header trailer_;
  std::vector<Extent> extents_;
  std::vector<std::string> warnings_;
  size_t extent_count_ = 0;
  Sectors data_sectors_;
  Sectors zero_sectors_;
};

}  // namespace obd
