// One header block of a tar file, byte for byte, in every dialect that layers come in: v7, ustar,
// GNU, star. Pure functions over spans, no I/O.
//
// Sources of the format: POSIX pax "ustar Interchange Format"; GNU tar manual, "Basic Tar Format";
// star(5).
//
// Thread-safety: pure functions. Errors: EINVAL; the sentence starts with `where` and names the
// field and the value.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/io/file.h"

namespace obd::oci {

inline constexpr size_t kTarBlock = 512;
// Of a file, holes included.
inline constexpr uint64_t kMaxFileSize = std::numeric_limits<int64_t>::max();
// The pax record that tells where a sparse file has data: OFFSET,LENGTH,OFFSET,LENGTH...
inline constexpr std::string_view kSparseMap = "GNU.sparse.map";
using TarBlock = std::span<const std::byte, kTarBlock>;

struct TarHeader {
  char type = '\0';
  std::string name;
  std::string link;
  int64_t mode = 0;
  int64_t uid = 0;
  int64_t gid = 0;
  int64_t size = 0;
  int64_t mtime = 0;  // seconds
  int64_t major = 0;
  int64_t minor = 0;
};

Result<TarHeader> decode_tar_header(TarBlock block, std::string_view where);

// Of an old GNU sparse file (type 'S'): some of its ranges of data, and where the rest is told.
struct OldSparseMap {
  std::vector<ByteRange> ranges;
  bool continued = false;  // another block of ranges follows
  uint64_t real_size = 0;  // of the file, holes included; only from the header
};
Result<OldSparseMap> decode_old_sparse_header(TarBlock block, std::string_view where);
Result<OldSparseMap> decode_old_sparse_extension(TarBlock block, std::string_view where);

// For sentences: bytes that are no printable ASCII become '?', and what is too long is cut.
std::string shown(std::string_view text);

// All of it digits of that base.
std::optional<uint64_t> parse_number(std::string_view digits, int base);

}  // namespace obd::oci
