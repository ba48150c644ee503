// Which records of an index log count.
//
// Every record is in one of four states:
//   committed    before the reach of the last valid commit or close marker: data and record are
//                stable, whatever happened since.
//   completed    after that, written by a session of the host's present boot: the page cache that
//                holds it never died, so it counts as well, unless a sync failed since (a distrust
//                marker says which records then still count).
//   foreign      in a log, or after a close marker, without a session marker: written by overlaybd,
//                which gives no sign of what is stable. It counts as overlaybd would count it, but
//                records at the end that point past the data file are dropped.
//   lost         after the last valid marker of a session of another boot: does not count.
//
// Markers chain: each check value covers every byte of the log up to its reach. The first marker
// whose check fails ends the search, because a later marker is appended only after the
// earlier one was stable; a log is therefore read in linear time, however hostile.
//
// Holes: within the log they are records of zeros like any others, which map nothing, and are not
// read but stepped over. (A copy that makes zeros sparse leaves them, and so does a power cut.) A
// hole at the end is no part of the log: no writer leaves one, and appending behind it would only
// make the file longer than a host allows. Neither is the padding at the end of a log that was not
// closed (core/layer/index_log.h).

#include "core/layer/log_reader.h"

#include <algorithm>
#include <array>
#include <optional>

#include "core/base/checksum.h"
#include "core/format/log_marker.h"

namespace obd {
namespace {

constexpr uint64_t kRecordsPerRead = 16384;  // 256 KiB

uint64_t record_offset(uint64_t record) { return lsmt::kHeaderSize + record * lsmt::kEntrySize; }

struct RecordRange {
  uint64_t from;
  uint64_t to;
};

// The first records of [from, to) that are not wholly in a hole; none when there are no more.
Result<std::optional<RecordRange>> next_run(const File& log, uint64_t from, uint64_t to) {
  if (from >= to) return std::nullopt;
  OBD_TRY_ASSIGN(const auto data, log.next_data(record_offset(from)));
  if (!data) return std::nullopt;
  const uint64_t begin = data->offset - lsmt::kHeaderSize;
  const uint64_t end = align_up(begin + data->length, lsmt::kEntrySize);
  const RecordRange run{std::max(from, begin / lsmt::kEntrySize),
                        std::min(to, end / lsmt::kEntrySize)};
  if (run.from >= run.to) return std::nullopt;
  return run;
}

// Calls visit(first record number, bytes of some records) for all of [from, to) but the holes.
template <typename Visit>
Result<void> for_each_chunk(const File& log, uint64_t from, uint64_t to, Visit&& visit) {
  std::vector<std::byte> buffer;
  for (;;) {
    OBD_TRY_ASSIGN(const auto run, next_run(log, from, to));
    if (!run) return {};
    for (uint64_t record = run->from; record < run->to;) {
      const auto count = static_cast<size_t>(std::min(kRecordsPerRead, run->to - record));
      buffer.resize(std::max(buffer.size(), count * lsmt::kEntrySize));
      const auto chunk = std::span(buffer).first(count * lsmt::kEntrySize);
      OBD_TRY(read_exactly(log, chunk, record_offset(record)));
      OBD_TRY(visit(record, std::span<const std::byte>(chunk)));
      record += count;
    }
    from = run->to;
  }
}

// Calls visit(record number, bytes) for each record of [0, to) that is not in a hole.
template <typename Visit>
Result<void> for_each_record(const File& log, uint64_t to, Visit&& visit) {
  return for_each_chunk(
      log, 0, to, [&](uint64_t record, std::span<const std::byte> chunk) -> Result<void> {
        for (; !chunk.empty(); chunk = chunk.subspan(lsmt::kEntrySize), ++record) {
          OBD_TRY(visit(record, chunk.first<lsmt::kEntrySize>()));
        }
        return {};
      });
}

// Where the last data of the log ends, in bytes; at least behind the header.
Result<uint64_t> end_of_data(const File& log) {
  uint64_t end = lsmt::kHeaderSize;
  for (;;) {
    OBD_TRY_ASSIGN(const auto data, log.next_data(end));
    if (!data) return end;
    end = data->offset + data->length;
  }
}

// How many records are left when the padding at their end is taken away.
Result<uint64_t> without_padding(const File& log, uint64_t records) {
  std::array<std::byte, kBlockSize> bytes;
  while (records > 0) {
    const uint64_t count = std::min<uint64_t>(records, bytes.size() / lsmt::kEntrySize);
    const auto chunk = std::span(bytes).first(count * lsmt::kEntrySize);
    OBD_TRY(read_exactly(log, chunk, record_offset(records - count)));
    for (uint64_t i = count; i > 0; --i, --records) {
      const std::span<const std::byte, lsmt::kEntrySize> record(&chunk[(i - 1) * lsmt::kEntrySize],
                                                                lsmt::kEntrySize);
      if (lsmt::decode_marker(record) || lsmt::decode_entry(record) != lsmt::kPadding) {
        return records;
      }
    }
  }
  return records;
}

// The CRC register over the log's records, moving forward only.
class CrcCursor {
 public:
  explicit CrcCursor(const File& log) : log_(log) {}

  [[nodiscard]] uint64_t record() const { return record_; }
  [[nodiscard]] uint32_t crc() const { return crc_; }

  Result<void> advance_to(uint64_t record) {
    OBD_TRY(for_each_chunk(log_, record_, record,
                           [&](uint64_t first, std::span<const std::byte> chunk) -> Result<void> {
                             skip_hole(first);
                             crc_ = crc32c(crc_, chunk);
                             record_ += chunk.size() / lsmt::kEntrySize;
                             return {};
                           }));
    skip_hole(record);
    return {};
  }

 private:
  void skip_hole(uint64_t to) {
    crc_ = crc32c_of_zeros(crc_, (to - record_) * lsmt::kEntrySize);
    record_ = to;
  }

  const File& log_;
  uint64_t record_ = 0;
  uint32_t crc_ = lsmt::kLogCrcInit;
};

// What the markers of a log say, in file order.
struct MarkerFindings {
  bool any_session = false;
  uint64_t last_boot_hash = 0;
  bool closed = false;     // a valid close marker came after the last session marker
  uint64_t closed_at = 0;  // that marker's record number
  uint64_t committed = 0;  // records
  uint32_t committed_crc = lsmt::kLogCrcInit;
  uint64_t believable = 0;  // within this boot: all, or less after a failed sync
  bool chain_broken = false;
};

Result<MarkerFindings> find_markers(const File& log, uint64_t whole_records) {
  MarkerFindings found;
  found.believable = whole_records;
  CrcCursor cursor(log);
  auto visit = [&](uint64_t record,
                   std::span<const std::byte, lsmt::kEntrySize> bytes) -> Result<void> {
    const auto marker = lsmt::decode_marker(bytes);
    if (!marker) return {};
    if (marker->kind == lsmt::MarkerKind::session) {
      found.any_session = true;
      found.last_boot_hash = marker->hash;
      found.closed = false;
      found.believable = whole_records;
      return {};
    }
    // Of what counts; which that is, the other markers tell.
    if (marker->kind == lsmt::MarkerKind::update_begun ||
        marker->kind == lsmt::MarkerKind::update_done) {
      return {};
    }
    if (marker->distance > record || record - marker->distance < cursor.record()) {
      found.chain_broken = true;
    }
    const uint64_t reach = found.chain_broken ? found.committed : record - marker->distance;
    if (!found.chain_broken) {
      OBD_TRY(cursor.advance_to(reach));
      found.chain_broken =
          lsmt::marker_check(cursor.crc(), marker->kind, marker->distance) != marker->check;
    }
    if (marker->kind == lsmt::MarkerKind::distrust) {
      found.believable = std::min(found.believable, found.chain_broken ? found.committed : reach);
      return {};
    }
    if (found.chain_broken) return {};
    found.committed = reach;
    found.committed_crc = cursor.crc();
    if (marker->kind == lsmt::MarkerKind::close && marker->distance == 0) {
      found.closed = true;
      found.closed_at = record;
    }
    return {};
  };
  OBD_TRY(for_each_record(log, whole_records, visit));
  return found;
}

// What is wrong with a mapping record; nullopt when nothing is.
std::optional<std::string> complaint(const lsmt::Entry& entry, const LogBounds& bounds) {
  const Sectors data_end = Sectors::floor(bounds.data_size);
  if (entry.physical < lsmt::kFirstDataSector) {
    return fmt::format("moffset {} lies in the header", entry.physical.count());
  }
  const Sectors end = entry.zeroed ? entry.physical : entry.physical + entry.length;
  if (end > data_end) {
    return fmt::format("moffset {} + length {} is past the data file's {} sectors",
                       entry.physical.count(), entry.length.count(), data_end.count());
  }
  if (bounds.sparse && !entry.zeroed && entry.physical != entry.offset + lsmt::kFirstDataSector) {
    return fmt::format("moffset {} is not offset {} + 8, as a sparse layer has it",
                       entry.physical.count(), entry.offset.count());
  }
  return std::nullopt;
}

void put(const lsmt::Entry& entry, Sectors disk_end, LiveIndex& index) {
  if (entry.offset >= disk_end) return;
  Extent extent;
  extent.logical = entry.offset;
  extent.length = std::min(entry.end(), std::min(disk_end, lsmt::kAddressableEnd)) - entry.offset;
  extent.kind = entry.zeroed ? ExtentKind::zero : ExtentKind::data;
  extent.physical = entry.zeroed ? Sectors() : entry.physical;
  extent.layer = kUpperLayer;
  index.reserve(1);
  index.insert(extent);
}

// True for a mark of an update.
bool note_update(std::span<const std::byte, lsmt::kEntrySize> bytes, LogScan& scan) {
  const auto marker = lsmt::decode_marker(bytes);
  if (!marker) return false;
  if (marker->kind == lsmt::MarkerKind::update_begun) {
    scan.pending_update = marker->hash;
  } else if (marker->kind == lsmt::MarkerKind::update_done) {
    scan.pending_update.reset();
  } else {
    return false;
  }
  return true;
}

}  // namespace

Result<lsmt::Header> read_log_header(const File& log) {
  std::array<std::byte, lsmt::kHeaderSize> bytes{};
  OBD_TRY(read_exactly(log, bytes, 0));
  OBD_TRY_ASSIGN(lsmt::Header header, lsmt::decode_header(bytes, log.path() + ": index header"));
  if (!header.is_header() || header.is_data()) {
    return fail(EINVAL, "{}: index header: flags {:#x} are not those of an index file", log.path(),
                header.flags);
  }
  if (header.is_sealed()) {
    return fail(EINVAL,
                "{}: index header: flags {:#x} have the sealed bit, which a writable layer's "
                "index never has",
                log.path(), header.flags);
  }
  if (header.index_offset != lsmt::kHeaderSize) {
    return fail(EINVAL, "{}: index header: index_offset {} is not {}", log.path(),
                header.index_offset, lsmt::kHeaderSize);
  }
  return header;
}

Result<LogScan> scan_log(const File& log, uint64_t boot_hash) {
  OBD_TRY_ASSIGN(const FileInfo info, log.info());
  LogScan scan;
  OBD_TRY_ASSIGN(const uint64_t data_end, end_of_data(log));
  // A hole may begin within a record, whose rest is then zeros.
  const uint64_t end = std::min(info.size, align_up(data_end, lsmt::kEntrySize));
  OBD_TRY_ASSIGN(scan.whole_records,
                 without_padding(log, (end - lsmt::kHeaderSize) / lsmt::kEntrySize));
  const uint64_t torn_bytes = (end - lsmt::kHeaderSize) % lsmt::kEntrySize;
  const uint64_t hole_bytes = info.size - end;
  const bool whole_file = torn_bytes == 0 && hole_bytes == 0;

  OBD_TRY_ASSIGN(const MarkerFindings found, find_markers(log, scan.whole_records));
  scan.committed_records = found.committed;
  scan.committed_crc = found.committed_crc;
  if (!found.any_session || found.closed) {
    const uint64_t own = found.closed ? found.closed_at + 1 : 0;
    scan.trusted_records = scan.whole_records;
    scan.clean = found.closed && own == scan.whole_records && whole_file;
    scan.foreign = !scan.clean;
    scan.must_rewrite = !scan.clean;
  } else if (found.last_boot_hash == boot_hash) {
    scan.trusted_records = std::max(found.believable, found.committed);
    // New markers behind a broken chain would vouch for nothing.
    scan.must_rewrite =
        scan.trusted_records != scan.whole_records || !whole_file || found.chain_broken;
    scan.session_open = true;
  } else {
    scan.trusted_records = found.committed;
    scan.must_rewrite = true;
  }
  if (scan.trusted_records < scan.whole_records) {
    scan.warnings.push_back(fmt::format(
        "{}: the last {} of {} records were never made stable before the host went down or a sync "
        "failed; they do not count",
        log.path(), scan.whole_records - scan.trusted_records, scan.whole_records));
  }
  if (found.chain_broken && scan.trusted_records == scan.whole_records) {
    // A killed process leaves a torn end, a power cut another boot id; neither leaves this.
    scan.losses.push_back(fmt::format(
        "{}: a marker's check value does not fit the records before it: a record has been changed "
        "or damaged since it was written",
        log.path()));
  }
  if (torn_bytes != 0) {
    scan.warnings.push_back(fmt::format(
        "{}: the last {} bytes are a torn record; they do not count", log.path(), torn_bytes));
  }
  if (hole_bytes != 0) {
    scan.warnings.push_back(
        fmt::format("{}: the last {} bytes are a hole in the file, where no writer left anything; "
                    "they do not count",
                    log.path(), hole_bytes));
  }
  return scan;
}

Result<void> replay_log(const File& log, const LogBounds& bounds, LogScan& scan, LiveIndex& index) {
  std::optional<uint64_t> first_bad;
  std::string first_complaint;
  CrcCursor cursor(log);
  uint64_t uncommitted = 0;
  uint64_t without_length = scan.trusted_records;  // those in holes, too
  auto visit = [&](uint64_t record,
                   std::span<const std::byte, lsmt::kEntrySize> bytes) -> Result<void> {
    const lsmt::Entry entry = lsmt::decode_entry(bytes);
    // A record of no length maps nothing: a zero-filled tail, or a write of zero bytes.
    if (!entry.is_invalid() && entry.length == Sectors()) return {};
    --without_length;
    if (entry.is_invalid()) {
      if (!first_bad && note_update(bytes, scan)) {
        ++scan.changes;
        if (record >= scan.committed_records) ++uncommitted;
      }
      return {};
    }
    if (auto wrong = complaint(entry, bounds)) {
      if (record < scan.committed_records) {
        return fail(EINVAL,
                    "{}: record {}: {}, although it was committed: the data file is damaged "
                    "or not this index's",
                    log.path(), record, *wrong);
      }
      if (!first_bad) {
        first_bad = record;
        first_complaint = std::move(*wrong);
      }
      return {};
    }
    if (first_bad) {
      return fail(EINVAL, "{}: record {}: {}, and good records follow it: the layer is damaged",
                  log.path(), *first_bad, first_complaint);
    }
    put(entry, bounds.disk_end, index);
    if (!entry.zeroed) scan.data_end = std::max(scan.data_end, entry.physical + entry.length);
    ++scan.changes;
    if (record >= scan.committed_records) ++uncommitted;
    return {};
  };
  OBD_TRY(for_each_record(log, scan.trusted_records, visit));
  if (first_bad) {
    scan.losses.push_back(
        fmt::format("{}: record {}: {}; it and the {} records after it do not count", log.path(),
                    *first_bad, first_complaint, scan.trusted_records - *first_bad - 1));
    scan.trusted_records = *first_bad;
    scan.must_rewrite = true;
    scan.clean = false;
  }
  if (without_length > 0) {
    scan.warnings.push_back(
        fmt::format("{}: {} records of length 0 map nothing", log.path(), without_length));
  }
  OBD_TRY(cursor.advance_to(scan.trusted_records));
  scan.trusted_crc = cursor.crc();
  scan.uncommitted_changes = uncommitted;
  return {};
}

}  // namespace obd
