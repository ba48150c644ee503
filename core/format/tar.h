// The tar file around a layer, byte for byte: one member. Pure functions over spans, no I/O.
//
// Source of the format: docs/format.md, section 6 (POSIX ustar and pax; what overlaybd writes).
// Thread-safety: pure functions. Errors: EINVAL; the sentence starts with `where` (the file) and
// names the header, the field and the value.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/base/result.h"
#include "core/io/file.h"

namespace obd::tar {

inline constexpr size_t kBlockSize = 512;
// What we write before the member: a pax header, its record, a ustar header.
inline constexpr size_t kPrefixSize = 3 * kBlockSize;
// The largest pax record area that is read.
inline constexpr size_t kMaxPaxSize = 4096;
// How many bytes from the file's start find_member() may need.
inline constexpr size_t kMaxPrefixSize = kBlockSize + kMaxPaxSize + kBlockSize;

// True when the bytes look like the start of a tar file, be it a damaged one.
bool looks_like_tar(std::span<const std::byte> start);

// Where the first member lies, whose headers are checked. `start` is the file's beginning, up to
// kMaxPrefixSize bytes of it, and `file_size` the whole file's size, within which the member lies.
Result<ByteRange> find_member(std::span<const std::byte> start, uint64_t file_size,
                              std::string_view where);

// The headers of a member of `size` bytes, as overlaybd writes them.
std::array<std::byte, kPrefixSize> encode_prefix(uint64_t size);

// How many zero bytes follow a member of `size` bytes: the rest of its block and two more.
constexpr size_t suffix_size(uint64_t size) {
  return static_cast<size_t>((kBlockSize - size % kBlockSize) % kBlockSize) + 2 * kBlockSize;
}

}  // namespace obd::tar
