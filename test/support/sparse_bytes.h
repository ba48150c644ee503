// The bytes of one file: sparse, in blocks of 4096 bytes that are there or are holes, as a host
// file system keeps them.
//
// Units: bytes; any offset that a file can have. Copies are cheap: blocks are shared until
// written to. Thread-safety: none, and copies that share blocks count as one object.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>

#include "core/io/file.h"

namespace obd::test {

class SparseBytes {
 public:
  static constexpr uint64_t kPageSize = 4096;

  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] uint64_t allocated() const { return pages_.size() * kPageSize; }

  // Reads until the buffer is full or the file ends; the value is the number of bytes read.
  size_t read(std::span<std::byte> out, uint64_t offset) const;
  // Extends the file where it must.
  void write(std::span<const std::byte> data, uint64_t offset);
  void truncate(uint64_t size);
  // Whole blocks become holes, parts of blocks zeros; the size stays.
  void punch(ByteRange range);

  // How many bytes from `offset` on can be written while at most `new_pages` holes are filled.
  [[nodiscard]] uint64_t writable_with(uint64_t new_pages, uint64_t offset, uint64_t length) const;

  // As File::next_data.
  [[nodiscard]] std::optional<ByteRange> next_data(uint64_t offset) const;

  // Numbers (offset / 4096) of the blocks that are there, in order, from `first` on.
  template <typename Visit>
  void for_each_page(uint64_t first, Visit&& visit) const {
    for (auto it = pages_.lower_bound(first); it != pages_.end(); ++it) visit(it->first);
  }

  // Same size, same blocks there, same bytes.
  bool operator==(const SparseBytes& other) const;

 private:
  using Page = std::array<std::byte, kPageSize>;

  Page& page_for_writing(uint64_t number);
  void zero_within_page(uint64_t begin, uint64_t end);

  uint64_t size_ = 0;
  std::map<uint64_t, std::shared_ptr<Page>> pages_;
};

}  // namespace obd::test
