// A blob: the read-only byte container that a sealed layer is stored in.
//
// What a layer's reader sees is the layer itself, byte for byte, whatever it is wrapped in: a plain
// file, a member of a tar file, a ZFile (core/zfile). open_blob() finds out which.
//
// Units: bytes. Ownership: a blob owns what it reads from. Thread-safety: all member functions may
// be called from many threads at once. Errors: EIO for a file that cannot be read or ends early;
// EBADMSG for content that does not match its checksum or cannot be decompressed. Each sentence
// names the file.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/io/file.h"

namespace obd {

enum class Compression : uint8_t { none, lz4, zstd };

// "none", "lz4", "zstd".
const char* name_of(Compression compression);

// How a blob is stored.
struct Container {
  bool tar = false;
  uint64_t offset = 0;  // in the file, where the member of a tar file starts
  Compression compression = Compression::none;
  // Of a ZFile:
  uint32_t block_size = 0;       // bytes of content that are compressed together
  uint64_t blocks = 0;           // how many there are
  bool checksums = false;        // each block has one
  uint64_t compressed_size = 0;  // of all blocks, with their checksums
  uint64_t content_size = 0;     // of all blocks, decompressed
};

// "raw", "tar", "zfile lz4 4K", "zfile zstd 64K in tar".
std::string to_text(const Container& container);

class Blob {
 public:
  virtual ~Blob() = default;

  // The file's, for sentences.
  [[nodiscard]] virtual const std::string& path() const = 0;
  // Of the content.
  [[nodiscard]] virtual uint64_t size() const = 0;
  // Reads until the buffer is full or the content ends; the value is the number of bytes read.
  // After an error the buffer holds anything.
  [[nodiscard]] virtual Result<size_t> read_at(std::span<std::byte> out, uint64_t offset) const = 0;
  // Asks for the range to be brought near; only a hint.
  virtual void prefetch(ByteRange range) const = 0;
  // Whether the byte can be read without waiting for a device; only a hint.
  [[nodiscard]] virtual bool is_near(uint64_t offset) const = 0;

  // The file itself: what it is and takes on the host, not what it holds.
  [[nodiscard]] virtual const File& file() const = 0;
  [[nodiscard]] virtual const Container& container() const = 0;
};

// Reads exactly out.size() bytes; content that ends before is EIO with a sentence.
Result<void> read_exactly(const Blob& blob, std::span<std::byte> out, uint64_t offset);

// A part of a file as it stands: a whole plain file, or the member of a tar file.
class FileBlob final : public Blob {
 public:
  // `window` lies within the file.
  FileBlob(std::unique_ptr<File> file, ByteRange window, bool tar)
      : file_(std::move(file)), window_(window), container_{.tar = tar, .offset = window.offset} {}

  [[nodiscard]] const std::string& path() const override { return file_->path(); }
  [[nodiscard]] uint64_t size() const override { return window_.length; }
  [[nodiscard]] Result<size_t> read_at(std::span<std::byte> out, uint64_t offset) const override {
    if (offset >= window_.length) return 0;
    out = out.first(std::min<uint64_t>(out.size(), window_.length - offset));
    return file_->read_at(out, window_.offset + offset);
  }
  void prefetch(ByteRange range) const override {
    if (range.offset >= window_.length) return;
    file_->prefetch(
        {window_.offset + range.offset, std::min(range.length, window_.length - range.offset)});
  }
  [[nodiscard]] bool is_near(uint64_t offset) const override {
    return offset >= window_.length || file_->is_near(window_.offset + offset);
  }
  [[nodiscard]] const File& file() const override { return *file_; }
  [[nodiscard]] const Container& container() const override { return container_; }

 private:
  const std::unique_ptr<File> file_;
  const ByteRange window_;
  const Container container_;
};

}  // namespace obd
