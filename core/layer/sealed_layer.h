// A sealed layer, in whatever blob it is stored: opened read-only, checked whole, immutable.
//
// Ownership: owns its blob, shares the block cache. Thread-safety: all functions; share freely.
// Errors: EINVAL for a malformed layer (file, field, value); ENOTSUP for a container with features
// that this version does not read; EBADMSG for compressed blocks that are damaged; EIO when the
// file is shorter than when it was opened.

#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/mutex.h"
#include "core/format/lsmt.h"
#include "core/io/blob.h"
#include "core/zfile/block_cache.h"

namespace obd {

class SealedLayer {
 public:
  // The cache is for blobs that are compressed; null keeps nothing, which is enough for a look at
  // the index.
  static Result<std::unique_ptr<SealedLayer>> open(FileSystem& fs, const std::string& path,
                                                   std::shared_ptr<BlockCache> cache = nullptr);
  // The same of a file that is open for reading.
  static Result<std::unique_ptr<SealedLayer>> open(std::unique_ptr<File> file,
                                                   std::shared_ptr<BlockCache> cache = nullptr);

  [[nodiscard]] const std::string& path() const { return blob_->path(); }
  [[nodiscard]] const lsmt::Header& trailer() const { return trailer_; }
  [[nodiscard]] const Blob& blob() const { return *blob_; }

  // What a person should know although the layer opens: unknown flag bits, entries past the end of
  // the virtual disk, more entries than overlaybd opens.
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }

  // The index, sorted and disjoint, without padding. The layer itself does not need it, its stack's
  // merged index does, so the first call moves out what open() has read. A later one, for another
  // stack with this layer in it, reads and checks it anew: that takes a few milliseconds for each
  // million entries, where keeping them would take 16 MB for as long as the layer is open.
  [[nodiscard]] Result<std::vector<lsmt::PackedEntry>> take_index() const;

  [[nodiscard]] size_t extent_count() const { return extent_count_; }
  [[nodiscard]] Sectors data_sectors() const { return data_sectors_; }
  [[nodiscard]] Sectors zero_sectors() const { return zero_sectors_; }
  [[nodiscard]] Sectors end() const { return end_; }  // of the last extent

 private:
  using Index = std::vector<lsmt::PackedEntry>;

  SealedLayer() = default;

  [[nodiscard]] Result<Index> read_index() const;
  [[nodiscard]] std::unexpected<Error> refuse_entry(uint64_t number, const lsmt::PackedEntry& entry,
                                                    Sectors previous_end, Sectors data_end) const;
  void sum_up(const Index& index);

  std::unique_ptr<Blob> blob_;
  lsmt::Header trailer_;
  std::vector<std::string> warnings_;
  size_t extent_count_ = 0;
  Sectors data_sectors_;
  Sectors zero_sectors_;
  Sectors end_;
  mutable Mutex mutex_;
  mutable std::optional<Index> index_ OBD_GUARDED_BY(mutex_);  // until it is taken
};

}  // namespace obd
