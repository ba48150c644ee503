// The metadata of a file system that is being changed, held back until it is whole.
//
// Libext2fs writes a block of inodes once for every inode in it, and a folder's block for every
// name. Here such a block is written once, at flush(), and only if it differs from what the disk
// holds: a layer then has what the change made different, and nothing else.
//
// Units: bytes. Thread-safety: none. Errors: those of the disk.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>

#include "tools/oci/disk.h"

namespace obd::oci {

class BlockCache {
 public:
  // The disk outlives the cache.
  explicit BlockCache(Disk& disk) : disk_(disk) {}

  // EINVAL past the end of the disk.
  Result<void> read(std::span<std::byte> out, uint64_t offset);
  Result<void> write(std::span<const std::byte> data, uint64_t offset);
  // The same for content that is not looked at again: whole blocks go to the disk at once.
  Result<void> write_through(std::span<const std::byte> data, uint64_t offset);

  // Writes what has been held back, and makes all of it stable.
  Result<void> flush();

 private:
  static constexpr uint64_t kPage = 4096;
  static constexpr size_t kMostPages = 16384;

  struct Page {
    std::array<std::byte, kPage> bytes;
    bool dirty = false;
  };

  Result<void> check(uint64_t offset, uint64_t length) const;
  [[nodiscard]] uint64_t page_size(uint64_t number) const;
  Result<Page*> page(uint64_t number, bool whole);
  Result<void> write_dirty();
  Result<void> make_room();

  Disk& disk_;
  std::unordered_map<uint64_t, Page> pages_;
};

}  // namespace obd::oci
