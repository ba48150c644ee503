// What a file system lies on: an image's disk, or a plain file that holds one.
//
// Units: bytes. Thread-safety: none.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/image/image.h"
#include "core/io/file.h"

namespace obd::oci {

class Disk {
 public:
  virtual ~Disk() = default;
  [[nodiscard]] virtual uint64_t size() const = 0;
  // Both lie within the disk.
  [[nodiscard]] virtual Result<void> read(std::span<std::byte> out, uint64_t offset) const = 0;
  [[nodiscard]] virtual Result<void> write(std::span<const std::byte> data, uint64_t offset) = 0;
  [[nodiscard]] virtual Result<void> flush() = 0;
};

// Refers to an image that is open for writing.
class ImageDisk final : public Disk {
 public:
  explicit ImageDisk(Image& image) : image_(image) {}
  [[nodiscard]] uint64_t size() const override { return image_.size(); }
  [[nodiscard]] Result<void> read(std::span<std::byte> out, uint64_t offset) const override {
    return image_.read(out, offset);
  }
  [[nodiscard]] Result<void> write(std::span<const std::byte> data, uint64_t offset) override {
    return image_.write(data, offset);
  }
  [[nodiscard]] Result<void> flush() override { return image_.flush(); }

 private:
  Image& image_;
};

// Refers to an open file, whose size stays.
class FileDisk final : public Disk {
 public:
  FileDisk(File& file, uint64_t size) : file_(file), size_(size) {}
  [[nodiscard]] uint64_t size() const override { return size_; }
  [[nodiscard]] Result<void> read(std::span<std::byte> out, uint64_t offset) const override {
    return read_exactly(file_, out, offset);
  }
  [[nodiscard]] Result<void> write(std::span<const std::byte> data, uint64_t offset) override {
    return file_.write_at(data, offset);
  }
  [[nodiscard]] Result<void> flush() override { return file_.sync(); }

 private:
  File& file_;
  uint64_t size_;
};

}  // namespace obd::oci
