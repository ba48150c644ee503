// Writes a new blob, front to back: plain, compressed as a ZFile, either of them in a tar file.
//
// The file is made under a temporary name; finish() makes it whole under its own and stable.
// Destroying the writer before that removes it. What is written is what overlaybd's own tools write
// from the same content, byte for byte, as far as the versions of lz4 and zstd agree.
//
// Units: bytes. Ownership: owns the file, and the threads that compress. Thread-safety: none.
// Errors: EINVAL for options that do not exist, EEXIST, those of the file; after one, only
// destroying the writer is allowed.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/format/zfile.h"
#include "core/io/blob.h"
#include "core/io/output_file.h"
#include "core/zfile/block_compressor.h"

namespace obd {

struct BlobOptions {
  Compression compression = Compression::none;
  int level = 0;  // 0: overlaybd's (zstd 3; lz4's fast mode); up to max_level(compression)
  // Of content compressed together: a power of two from zfile::kMinBlockSize to kMaxBlockSize.
  // Overlaybd knows 4, 8, 16, 32 and 64 KiB.
  uint32_t block_size = zfile::kDefaultBlockSize;
  bool tar = false;
  unsigned threads = 0;  // to compress with; 0: as many as the host has cores
  // Whose owner and mode the file has, from before anything is in it; without it 0644.
  std::optional<FileInfo> like = {};
};

class BlobWriter {
 public:
  // `path` must not exist unless `overwrite`.
  static Result<std::unique_ptr<BlobWriter>> create(FileSystem& fs, const std::string& path,
                                                    const BlobOptions& options, bool overwrite);

  Result<void> append(std::span<const std::byte> content);
  // How much content was appended.
  [[nodiscard]] uint64_t size() const { return size_; }

  Result<void> finish();

  // What a person should know after finish() although the blob is right: what overlaybd cannot
  // read.
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  BlobWriter(std::string path, const BlobOptions& options, OutputFile output);

  Result<void> append_to_file(std::span<const std::byte> bytes);
  Result<void> add_blocks(std::span<const std::byte> stored, std::span<const uint32_t> lengths);
  Result<void> finish_zfile();
  void add_warnings();

  const std::string path_;
  const BlobOptions options_;
  OutputFile output_;
  uint64_t blob_start_;  // in the file
  uint64_t tail_;        // in the file: where the next bytes go
  uint64_t size_ = 0;
  std::vector<std::string> warnings_;

  // Of a ZFile:
  std::vector<uint32_t> lengths_;  // stored, of each block
  uint64_t largest_group_ = 0;     // what overlaybd has to hold in 16 bits, see zfile.h
  uint64_t group_ = 0;
  uint64_t largest_stored_ = 0;
  std::unique_ptr<BlockCompressor> compressor_;  // last: its threads end first
};

}  // namespace obd
