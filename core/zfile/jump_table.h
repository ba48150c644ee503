// Where each block of a ZFile is stored, in memory.
//
// The file has 4 bytes a block; a 1 TiB layer of 4 KiB blocks would take 1 GiB. Here it is the
// stored length in as many bits as max_stored_size() needs, and for each group of 32 blocks where
// the group starts, in 64 bits. That is, a block:
//
//   block size   bits   bytes with the group's share of 0.25
//      4 KiB      14     2.0
//     64 KiB      18     2.5
//      1 MiB      22     3.0
//
// Finding a block adds up at most 31 lengths.
//
// Units: bytes. Thread-safety: const functions may be called from many threads. Errors: none; the
// reader checks the lengths before it adds them.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/io/file.h"

namespace obd {

class JumpTable {
 public:
  // An empty table; the first block is stored at `start`.
  JumpTable(uint32_t block_size, uint64_t start);

  // The next block; 0 < stored_length <= zfile::max_stored_size(block_size). Memory grows as blocks
  // are added, never by a number that a file claims.
  void push_back(uint32_t stored_length);

  // Gives back what growing took in advance.
  void shrink();

  // Where the block is stored, with its checksum; block < the number of blocks.
  [[nodiscard]] ByteRange find(uint64_t block) const;

  // Where the blocks so far end.
  [[nodiscard]] uint64_t end() const { return end_; }

  // Bytes that it takes, once shrunk.
  [[nodiscard]] uint64_t memory() const {
    return packed_.size() + group_starts_.size() * sizeof(uint64_t);
  }

 private:
  [[nodiscard]] uint32_t length_of(uint64_t block) const;

  unsigned bits_;
  uint64_t count_ = 0;
  uint64_t end_;
  std::vector<std::byte> packed_;  // bits_ a block, little-endian, 8 bytes of slack at the end
  std::vector<uint64_t> group_starts_;
};

}  // namespace obd
