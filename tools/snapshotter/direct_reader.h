// Reading a device past the page cache, which may hold what it showed earlier.
//
// Units: bytes. Thread-safety: none. Errors: of the system calls, with the path and offset; EIO
// where the device ends too early.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>

#include "core/base/result.h"
#include "core/io/descriptor.h"

namespace obd::snapshotter {

class DirectReader {
 public:
  // A file on a host file system without direct I/O is read as it can be.
  static Result<DirectReader> open(const std::string& path);

  // At least one byte and at most `length`; valid until the next call. `offset` is any.
  Result<std::span<const std::byte>> read(uint64_t offset, uint64_t length) const;

 private:
  struct Free {
    void operator()(std::byte* buffer) const { std::free(buffer); }
  };
  DirectReader(std::string path, Descriptor fd, std::byte* buffer)
      : path_(std::move(path)), fd_(std::move(fd)), buffer_(buffer) {}

  std::string path_;
  Descriptor fd_;
  std::unique_ptr<std::byte, Free> buffer_;
};

}  // namespace obd::snapshotter
