// Bytes that come front to back, once: a layer as it lies in a file, decompressed.
//
// Ownership: a stream owns what it reads from. Thread-safety: none. Errors: those of the file;
// EINVAL for compressed data that is damaged or cut off. Each sentence names the file.

#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "core/base/progress.h"
#include "core/io/file.h"

namespace obd::oci {

class ByteStream {
 public:
  virtual ~ByteStream() = default;

  // Of the file, for sentences.
  [[nodiscard]] virtual const std::string& name() const = 0;

  // Reads until the buffer is full or the stream ends; the value is the number of bytes read.
  [[nodiscard]] virtual Result<size_t> read(std::span<std::byte> out) = 0;
};

// Opens a file that is a tar file, as it is or compressed with gzip or zstd, told by its first
// bytes. `report` is told how much of the file has been read.
Result<std::unique_ptr<ByteStream>> open_layer_stream(FileSystem& fs, const std::string& path,
                                                      ReportProgress report);

// The same for a file that is open.
Result<std::unique_ptr<ByteStream>> layer_stream(std::unique_ptr<File> file, ReportProgress report);

}  // namespace obd::oci
