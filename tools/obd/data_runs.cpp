#include "tools/obd/data_runs.h"

#include <algorithm>
#include <optional>

#include "core/base/units.h"
#include "core/base/zeros.h"
#include "tools/obd/progress.h"

namespace obd::tool {
Result<void> skip_zero_blocks(uint64_t offset, std::span<const std::byte> data,
                              const DataSink& sink) {
  size_t begin = 0;  // of the data not yet given to the sink
  size_t at = 0;
  while (at < data.size()) {
    const size_t to_boundary = kBlockSize - (offset + at) % kBlockSize;
    const size_t block = std::min<size_t>(to_boundary, data.size() - at);
    if (is_all_zero(data.subspan(at, block))) {
      if (begin < at) OBD_TRY(sink(offset + begin, data.subspan(begin, at - begin)));
      begin = at + block;
    }
    at += block;
  }
  if (begin < at) OBD_TRY(sink(offset + begin, data.subspan(begin)));
  return {};
}

Result<std::vector<ByteRange>> data_runs(const File& file) {
  OBD_TRY_ASSIGN(const FileInfo info, file.info());
  const uint64_t end_of_file = Sectors::ceil(info.size).bytes();
  std::vector<ByteRange> runs;
  uint64_t from = 0;
  while (from < info.size) {
    OBD_TRY_ASSIGN(const std::optional<ByteRange> found, file.next_data(from));
    if (!found) break;
    const uint64_t begin = align_down(found->offset, kBlockSize);
    const uint64_t found_end = found->offset + found->length;
    const uint64_t end = std::min(align_up(found_end, kBlockSize), end_of_file);
    if (!runs.empty() && begin <= runs.back().offset + runs.back().length) {
      runs.back().length = end - runs.back().offset;
    } else {
      runs.push_back({begin, end - begin});
    }
    from = found_end;
  }
  return runs;
}

Result<void> copy_runs(const File& file, std::span<const ByteRange> runs, const std::string& what,
                       const DataSink& sink) {
  uint64_t total = 0;
  for (const ByteRange& run : runs) total += run.length;
  Progress progress(what, total);
  std::vector<std::byte> buffer(kCopyBufferSize);
  for (const ByteRange& run : runs) {
    for (uint64_t done = 0; done < run.length;) {
      const size_t size = std::min<uint64_t>(run.length - done, buffer.size());
      const std::span<std::byte> chunk(buffer.data(), size);
      OBD_TRY_ASSIGN(const size_t got, file.read_at(chunk, run.offset + done));
      std::ranges::fill(chunk.subspan(got), std::byte{0});
      OBD_TRY(skip_zero_blocks(run.offset + done, chunk, sink));
      OBD_TRY(progress.advance(size));
      done += size;
    }
  }
  return {};
}

}  // namespace obd::tool
