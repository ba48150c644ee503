// Copying the data of sparse files: only what is there, and of that only what is not zero.
//
// Units: bytes. Thread-safety: none.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/io/file.h"

namespace obd::tool {

inline constexpr size_t kCopyBufferSize = size_t{1} << 20;

// Takes bytes that belong at `offset`.
using DataSink = std::function<Result<void>(uint64_t offset, std::span<const std::byte> data)>;

// Calls `sink` for the parts of `data`, which lies at `offset`, that hold anything but zeros. They
// are cut at multiples of 4 KiB of the offset: a block with any other byte in it counts whole.
Result<void> skip_zero_blocks(uint64_t offset, std::span<const std::byte> data,
                              const DataSink& sink);

// Where the file has data, in ascending order, widened to multiples of 4 KiB and joined; the last
// run may end at a multiple of 512 at or after the file's end instead.
Result<std::vector<ByteRange>> data_runs(const File& file);

// Reads the runs of a file and gives `sink` what is not zero, in ascending order, all offsets
// and sizes multiples of 512. What the last run has past the file's end counts as zeros. Shows
// progress as `what`.
Result<void> copy_runs(const File& file, std::span<const ByteRange> runs, const std::string& what,
                       const DataSink& sink);

}  // namespace obd::tool
