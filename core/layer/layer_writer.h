// Writes a new sealed layer, front to back, in ascending logical order.
//
// finish() makes it appear under its name, whole and stable; destroying the writer before that
// leaves nothing behind (core/zfile/blob_writer.h).
//
// Thread-safety: none. Errors: EINVAL for extents out of order; those of the blob's writer.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/format/lsmt.h"
#include "core/index/extent.h"
#include "core/zfile/blob_writer.h"

namespace obd {

struct LayerOptions {
  uint64_t virtual_size = 0;  // bytes
  Uuid uuid;
  Uuid parent_uuid;
  std::string user_tag;    // at most lsmt::kMaxTagSize bytes
  bool overwrite = false;  // replace an existing target; without it that is EEXIST
  BlobOptions blob;        // how to store it
};

class LayerWriter {
 public:
  static Result<std::unique_ptr<LayerWriter>> create(FileSystem& fs, const std::string& path,
                                                     LayerOptions options);

  // data.size() is a multiple of 512.
  Result<void> append_data(Sectors logical, std::span<const std::byte> data);
  Result<void> append_zero(Sectors logical, Sectors length);

  // Number of index entries so far.
  [[nodiscard]] size_t entry_count() const { return entries_.size(); }

  Result<void> finish();

  // What a person should know after finish() although the layer is right.
  [[nodiscard]] const std::vector<std::string>& warnings() const { return blob_->warnings(); }

 private:
  LayerWriter(std::string path, LayerOptions options, std::unique_ptr<BlobWriter> blob)
      : path_(std::move(path)), options_(std::move(options)), blob_(std::move(blob)) {}

  [[nodiscard]] lsmt::Header header(uint32_t flags) const;
  Result<void> add_entry(const lsmt::Entry& entry);

  std::string path_;
  LayerOptions options_;
  std::unique_ptr<BlobWriter> blob_;
  std::vector<lsmt::Entry> entries_;
  Sectors next_logical_;
};

}  // namespace obd
