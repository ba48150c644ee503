// ZFile: header, trailer and checksums, byte for byte. Pure functions over spans, no I/O.
//
// A ZFile is a header, compressed blocks (each of block_size bytes of content, the last one perhaps
// less, each with an optional checksum behind it), a jump table with the stored length of each
// block, and a trailer. Source of the format: docs/format.md, section 7.
//
// Thread-safety: pure functions and plain values. Errors: the sentence starts with `where` (the
// file and part) and names the field and the value. EINVAL: malformed; ENOTSUP: something that is
// defined or conceivable, but that this version does not read.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/base/result.h"
#include "core/io/blob.h"

namespace obd::zfile {

inline constexpr size_t kHeaderSize = 512;  // header and trailer alike
inline constexpr size_t kTableEntrySize = 4;
inline constexpr size_t kChecksumSize = 4;

// Block sizes are powers of two. Overlaybd's tools write 4 to 64 KiB. A sector is the smallest that
// an LSMT reader asks for. Larger blocks than 1 MiB would make the smallest read cost as much, and
// nobody is known to write them.
inline constexpr uint32_t kMinBlockSize = 512;
inline constexpr uint32_t kMaxBlockSize = uint32_t{1} << 20;
inline constexpr uint32_t kDefaultBlockSize = 4096;

// Overlaybd crashes on blocks of more than 64 KiB. It keeps a stored block in a buffer of that
// size, and where the blocks of a group of 64 KiB of content start within it, in 16 bits: so
// neither a stored length nor the sum of a group's, its last one left out, may be larger than this.
inline constexpr uint32_t kMaxUpstreamBlockSize = 65536;
inline constexpr uint32_t kMaxUpstreamStored = 65534;

enum Flag : uint64_t {
  kFlagHeader = 1u << 0,  // clear: trailer
  kFlagData = 1u << 1,
  kFlagSealed = 1u << 2,
  kFlagFinal = 1u << 3,   // of a header: has the final values, so that no trailer is needed
  kFlagDigest = 1u << 4,  // digest and table_checksum are there
  kFlagTableCompressed = 1u << 5,
};

struct Header {
  uint64_t flags = 0;
  uint64_t table_offset = 0;    // "index_offset", bytes
  uint64_t blocks = 0;          // "index_size"
  uint64_t content_size = 0;    // "original_file_size", bytes
  uint32_t table_checksum = 0;  // "index_crc"
  uint32_t block_size = 0;      // bytes
  uint8_t algorithm = 0;        // algorithm_of()
  bool use_dictionary = false;
  uint32_t dictionary_size = 0;  // bytes
  bool checksums = false;        // "verify"

  [[nodiscard]] bool is_header() const { return (flags & kFlagHeader) != 0; }
  [[nodiscard]] bool is_final() const { return (flags & kFlagFinal) != 0; }
  [[nodiscard]] bool has_digest() const { return (flags & kFlagDigest) != 0; }
};

// True when the bytes start with ZFile's two magic numbers.
bool has_magic(std::span<const std::byte> bytes);

// With the digest, if the flags say so.
std::array<std::byte, kHeaderSize> encode_header(const Header& header);

// Checks the magic numbers, and the digest if there is one; nothing else.
Result<Header> decode_header(std::span<const std::byte, kHeaderSize> bytes, std::string_view where);

// Checks everything that a header or trailer with the final values says about the rest of the file,
// so that a reader can go by it. `table_limit`: where the table has to end at the latest.
Result<void> check_final(const Header& header, uint64_t table_limit, std::string_view where);

// The number that a header has for a compression (not none), and back; none for an unknown one.
uint8_t algorithm_of(Compression compression);
Compression compression_of(uint8_t algorithm);

// More than any compressor makes of a block, its checksum included: a bound on what a reader
// allocates and on the numbers of a jump table.
constexpr uint64_t max_stored_size(uint32_t block_size) { return 2 * uint64_t{block_size} + 64; }

// Of a block's compressed bytes; stored right behind them, little-endian.
uint32_t block_checksum(std::span<const std::byte> compressed);
// Of a part of the jump table, following `before`, the checksum of what stands before it or 0.
uint32_t table_checksum(uint32_t before, std::span<const std::byte> part);

}  // namespace obd::zfile
