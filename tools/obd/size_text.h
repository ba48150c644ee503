// Sizes as people write and read them: "1.5G", "4096", "10 GiB".
//
// Units: bytes; the suffixes are powers of 1024. Thread-safety: pure functions.
// Errors: EINVAL; the sentence quotes the text and says what is accepted.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace obd::tool {

// Digits, perhaps with a decimal point, perhaps followed by one of K M G T P E in either case and
// then by "iB". A fraction is rounded up to whole bytes; below 2^64.
Result<uint64_t> parse_size(std::string_view text);

// A size that a disk can have: a multiple of 512 (to which a fraction is rounded up), not 0, at
// most kMaxDiskSize.
Result<uint64_t> parse_disk_size(std::string_view text);

// Rounded to the nearest tenth of a unit: "0 B", "1.5 GiB", "64 MiB".
std::string human_size(uint64_t bytes);

// "1.5 GiB (1610612736 bytes)": for the sizes that have to be exact.
std::string exact_size(uint64_t bytes);

}  // namespace obd::tool
