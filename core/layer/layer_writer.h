// Writes a new sealed layer, front to back, in ascending logical order.
//
// The file is made under a temporary name beside its target; finish() syncs it, renames it and
// syncs the folder, so that the target is a whole layer or not there. Destroying the writer before
// finish() removes the temporary file.
//
// Thread-safety: none. Errors: EINVAL for extents out of order; those of the files below.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/format/lsmt.h"
#include "core/index/extent.h"
#include "core/io/file.h"

namespace obd {

struct LayerOptions {
  uint64_t virtual_size = 0;  // bytes
  Uuid uuid;
  Uuid parent_uuid;
  std::string user_tag;    // at most lsmt::kMaxTagSize bytes
  bool overwrite = false;  // replace an existing target; without it that is EEXIST
};

class LayerWriter {
 public:
  static Result<std::unique_ptr<LayerWriter>> create(FileSystem& fs, const std::string& path,
                                                     LayerOptions options);
  ~LayerWriter();
  LayerWriter(const LayerWriter&) = delete;
  LayerWriter& operator=(const LayerWriter&) = delete;

  // data.size() is a multiple of 512.
  Result<void> append_data(Sectors logical, std::span<const std::byte> data);
  Result<void> append_zero(Sectors logical, Sectors length);

  // Number of index entries so far.
  [[nodiscard]] size_t entry_count() const { return entries_.size(); }

  Result<void> finish();

 private:
  LayerWriter(FileSystem& fs, std::string path, LayerOptions options);
  Result<void> add_entry(const lsmt::Entry& entry);

  FileSystem& fs_;
  std::string path_;
  std::string temporary_path_;
  LayerOptions options_;
  std::unique_ptr<File> file_;
  std::vector<lsmt::Entry> entries_;
  Sectors tail_ = lsmt::kFirstDataSector;  // where the next data goes
  Sectors next_logical_;
  bool finished_ = false;
};

}  // namespace obd
