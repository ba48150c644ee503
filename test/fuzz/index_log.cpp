// Whatever a log holds, what counts is a prefix of it, maps nothing outside the data file, and says
// whether an update pends.
//
// Input: one byte of choices (bit 0: sparse; bit 1: the boot is that of the log's sessions), the
// log's records.

#include <array>
#include <optional>
#include <vector>

#include "core/format/log_marker.h"
#include "core/layer/log_reader.h"
#include "test/fuzz/bounds.h"
#include "test/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace obd;
  const fuzz::Bounds limits(size);
  if (size == 0) return 0;
  const bool sparse = (data[0] & 1) != 0;
  const bool same_boot = (data[0] & 2) != 0;
  const auto records = fuzz::as_bytes(data + 1, size - 1);

  lsmt::Header header;
  header.flags = lsmt::kFlagHeader | (sparse ? lsmt::kFlagSparse : 0U);
  header.index_offset = lsmt::kHeaderSize;
  header.virtual_size = uint64_t{1} << 30;
  const auto encoded = lsmt::encode_header(header);
  std::vector<std::byte> log(encoded.begin(), encoded.end());
  log.insert(log.end(), records.begin(), records.end());
  test::MemoryFileSystem fs;
  fuzz::put_file(fs, "/log", log);

  uint64_t boot_hash = 1;
  for (size_t at = 0; same_boot && at + lsmt::kEntrySize <= records.size();
       at += lsmt::kEntrySize) {
    const auto marker = lsmt::decode_marker(
        std::span<const std::byte, lsmt::kEntrySize>(records.subspan(at, lsmt::kEntrySize)));
    if (marker && marker->kind == lsmt::MarkerKind::session) boot_hash = marker->hash;
  }

  const auto file = fs.open("/log", Access::read_only);
  auto scan = scan_log(**file, boot_hash);
  if (!scan) {
    fuzz::require_sentence(scan.error(), "/log");
    return 0;
  }
  fuzz::require(scan->trusted_records <= scan->whole_records, "what counts is a prefix");
  fuzz::require(scan->committed_records <= scan->trusted_records, "what is committed counts");
  LogBounds bounds;
  bounds.sparse = sparse;
  bounds.data_size = uint64_t{1} << 24;
  bounds.disk_end = Sectors::floor(header.virtual_size);
  LiveIndex index;
  if (const auto replayed = replay_log(**file, bounds, *scan, index); !replayed) {
    fuzz::require_sentence(replayed.error(), "/log");
    return 0;
  }
  std::optional<uint64_t> pending;
  for (uint64_t record = 0; record < scan->trusted_records; ++record) {
    const auto marker = lsmt::decode_marker(std::span<const std::byte, lsmt::kEntrySize>(
        records.subspan(record * lsmt::kEntrySize, lsmt::kEntrySize)));
    if (!marker) continue;
    if (marker->kind == lsmt::MarkerKind::update_begun) pending = marker->hash;
    if (marker->kind == lsmt::MarkerKind::update_done) pending.reset();
  }
  fuzz::require(scan->pending_update == pending, "the last mark that counts says what pends");
  std::array<Extent, 64> found;
  for (Sectors from;;) {
    const size_t count = index.find(from, lsmt::kAddressableEnd, found);
    for (const Extent& extent : std::span(found).first(count)) {
      fuzz::require(extent.end() <= bounds.disk_end, "no extent lies past the disk");
      fuzz::require(extent.kind == ExtentKind::zero ||
                        (extent.physical >= lsmt::kFirstDataSector &&
                         (extent.physical + extent.length).bytes() <= bounds.data_size),
                    "no extent lies outside the data file");
    }
    if (count < found.size()) break;
    from = found.back().end();
  }
  return 0;
}
