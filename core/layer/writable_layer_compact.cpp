// Giving back the dead space of a writable layer, in place.
//
// append   A dense data file would be the header and then the live data, nothing else. What lives
//          past that end moves, in order, into the dead space before it:
//
//            1. everything is flushed, so no log that a crash can leave names the dead space
//            2. live data from past the dense end is copied into dead space, and synced
//            3. a log that names the new places is written, synced and renamed over the old one,
//               and the folder is synced: the one step that switches
//            4. the data file is cut at the dense end
//
//          A crash or a failure before 3 leaves the old log, and every byte that it names is where
//          it was; after 3 the new log, whose data was stable before. After 4 was lost, the rest of
//          the file is dead space for the next time. The data file stays the same file under the
//          same name, so its lock holds throughout, and there never are two files to switch at
//          once. No second copy of the live data is needed: it works on a host that is full.
//
// sparse   Blocks that are allocated although no data extent names them are punched, after a flush:
//          no log that a crash can leave names them.

#include <algorithm>
#include <array>
#include <vector>

#include "core/layer/writable_layer.h"

namespace obd {
namespace {

constexpr size_t kCopySize = 1024 * 1024;
// Fewer dead records than fit into one block of the host are not worth a new log.
constexpr uint64_t kFewRecords = kBlockSize / lsmt::kEntrySize;

// Sectors of the data file that move.
struct Move {
  Sectors from, to, length;
};

struct MovePlan {
  std::vector<Move> moves;  // ascending in both places
  Sectors total;            // of their lengths
  Sectors end;              // where the dense file ends
};

// All extents of an index, in order of the disk.
template <typename Visit>
void for_each(const LiveIndex& index, Visit&& visit) {
  std::array<Extent, 256> found;
  for (Sectors from;;) {
    const size_t count = index.find(from, lsmt::kAddressableEnd, found);
    for (size_t i = 0; i < count; ++i) visit(found[i]);
    if (count < found.size()) return;
    from = found.back().end();
  }
}

// The parts of the data file that are live, ascending and disjoint. (Records of another writer may
// name the same bytes twice.)
std::vector<SectorRange> live_ranges(const LiveIndex& index) {
  std::vector<SectorRange> ranges;
  for_each(index, [&](const Extent& extent) {
    if (extent.kind != ExtentKind::data) return;
    ranges.push_back({extent.physical, extent.physical + extent.length});
  });
  std::ranges::sort(ranges, {}, &SectorRange::from);
  size_t kept = 0;
  for (const SectorRange& range : ranges) {
    if (kept > 0 && range.from <= ranges[kept - 1].to) {
      ranges[kept - 1].to = std::max(ranges[kept - 1].to, range.to);
    } else {
      ranges[kept++] = range;
    }
  }
  ranges.resize(kept);
  return ranges;
}

MovePlan plan_moves(const LiveIndex& index) {
  const std::vector<SectorRange> live = live_ranges(index);
  MovePlan plan;
  plan.end = lsmt::kFirstDataSector;
  for (const SectorRange& range : live) plan.end += range.to - range.from;

  // As many live sectors lie past the dense end as dead ones lie before it.
  auto source = std::ranges::upper_bound(live, plan.end, {}, &SectorRange::to);
  Sectors from = source == live.end() ? plan.end : std::max(source->from, plan.end);
  Sectors gap = lsmt::kFirstDataSector;
  const auto fill_gap = [&](Sectors gap_end) {
    while (gap < gap_end) {
      const Sectors length = std::min(gap_end - gap, source->to - from);
      plan.moves.push_back({from, gap, length});
      plan.total += length;
      gap += length;
      from += length;
      if (from == source->to && ++source != live.end()) from = source->from;
    }
  };
  for (const SectorRange& range : live) {
    if (range.from >= plan.end) break;
    fill_gap(range.from);
    gap = range.to;
  }
  fill_gap(plan.end);
  return plan;
}

// The index with the moved data at its new places.
LiveIndex moved(const LiveIndex& index, const std::vector<Move>& moves) {
  LiveIndex result;
  const auto insert = [&](const Extent& extent) {
    result.reserve(1);
    result.insert(extent);
  };
  for_each(index, [&](Extent extent) {
    if (extent.kind != ExtentKind::data) return insert(extent);
    // The first move that ends past the extent's first sector.
    auto move = std::ranges::partition_point(
        moves, [&](const Move& m) { return m.from + m.length <= extent.physical; });
    while (extent.length > Sectors()) {
      Extent part = extent;
      if (move == moves.end() || extent.physical + extent.length <= move->from) {
        return insert(part);
      }
      if (extent.physical < move->from) {
        part.length = move->from - extent.physical;
      } else {
        part.length = std::min(extent.length, move->from + move->length - extent.physical);
        part.physical = move->to + (extent.physical - move->from);
        ++move;
      }
      insert(part);
      extent.logical += part.length;
      extent.physical += part.length;
      extent.length -= part.length;
    }
  });
  return result;
}

Result<void> copy_moves(File& file, const MovePlan& plan, const ReportProgress& report) {
  std::vector<std::byte> buffer(kCopySize);
  uint64_t done = 0;
  for (const Move& move : plan.moves) {
    for (uint64_t at = 0; at < move.length.bytes();) {
      const auto chunk = std::span(buffer).first(
          static_cast<size_t>(std::min<uint64_t>(buffer.size(), move.length.bytes() - at)));
      OBD_TRY(read_exactly(file, chunk, move.from.bytes() + at));
      OBD_TRY(file.write_at(chunk, move.to.bytes() + at));
      at += chunk.size();
      done += chunk.size();
      OBD_TRY(report_progress(report, "moving", done, plan.total.bytes()));
    }
  }
  return {};
}

// What is allocated in a sparse layer's file and named by no data extent, in whole blocks.
Result<std::vector<ByteRange>> unnamed_blocks(const File& file, const LiveIndex& index,
                                              Sectors disk_end) {
  OBD_TRY_ASSIGN(const FileInfo info, file.info());
  const uint64_t block = std::max<uint64_t>(info.block_size, kSectorSize);
  std::vector<ByteRange> unnamed;
  auto add_gap = [&](Sectors from, Sectors to) -> Result<void> {
    const uint64_t begin = align_up((lsmt::kFirstDataSector + from).bytes(), block);
    const uint64_t end = align_down((lsmt::kFirstDataSector + to).bytes(), block);
    for (uint64_t at = begin; at < end;) {
      OBD_TRY_ASSIGN(const auto run, file.next_data(at));
      if (!run || run->offset >= end) break;
      at = std::min(run->offset + run->length, end);
      unnamed.push_back({run->offset, at - run->offset});
    }
    return {};
  };
  Sectors gap;
  Result<void> looked;
  for_each(index, [&](const Extent& extent) {
    if (!looked || extent.kind != ExtentKind::data) return;
    looked = add_gap(gap, extent.logical);
    gap = extent.end();
  });
  if (!looked) return std::unexpected<Error>(std::move(looked).error());
  OBD_TRY(add_gap(gap, std::max(gap, disk_end)));
  return unnamed;
}

}  // namespace

uint64_t WritableLayer::dead_log_records() const {
  const IndexLog* log = log_at_rest();
  const uint64_t records = log != nullptr ? log->position().records : 0;
  return records - std::min<uint64_t>(records, index_at_rest().extent_count());
}

// The log is new, whole and stable: the next change begins a session on it as on any closed log.
void WritableLayer::end_session() {
  scan_.clean = true;
  scan_.foreign = false;
  const MutexLock lock(session_mutex_);
  settled_ = true;
  session_ready_ = false;
}

Result<WritableLayer::Compaction> WritableLayer::compact(const ReportProgress& report) {
  OBD_TRY(check_usable());
  OBD_TRY(refuse_other_names("compacting it"));
  return kind_ == UpperKind::append ? compact_append(report) : compact_sparse(report);
}

Result<WritableLayer::Compaction> WritableLayer::compact_append(const ReportProgress& report) {
  const MovePlan plan = plan_moves(index_at_rest());
  OBD_TRY_ASSIGN(const FileInfo before, data_->info());
  Compaction done;
  done.changed =
      !plan.moves.empty() || before.size > plan.end.bytes() || dead_log_records() > kFewRecords;
  if (!done.changed) return done;

  OBD_TRY(ensure_session());
  OBD_TRY(flush());
  data_dirty_ = true;
  OBD_TRY(copy_moves(*data_, plan, report));
  LiveIndex next = moved(index_at_rest(), plan.moves);
  const uint64_t records = log_at_rest()->position().records;
  OBD_TRY(replace_log(header_, next));
  {
    const WriterLock index_lock(index_mutex_);
    index_ = std::move(next);
  }
  end_session();
  done.moved = plan.total.bytes();
  done.log_freed =
      (records - std::min(records, log_at_rest()->position().records)) * lsmt::kEntrySize;

  OBD_TRY(data_->truncate(plan.end.bytes()));
  recorded_end_ = plan.end.bytes();
  space_.reset(Sectors::floor(align_up(plan.end.bytes(), kBlockSize)));
  OBD_TRY(data_->sync());
  done.freed = before.size - std::min(before.size, plan.end.bytes());
  return done;
}

Result<WritableLayer::Compaction> WritableLayer::compact_sparse(const ReportProgress& report) {
  const Sectors disk_end = Sectors::floor(virtual_size_);
  OBD_TRY_ASSIGN(const auto unnamed, unnamed_blocks(*data_, index_at_rest(), disk_end));
  OBD_TRY_ASSIGN(const FileInfo before, data_->info());
  const uint64_t end = lsmt::kHeaderSize + virtual_size_;
  Compaction done;
  done.changed = !unnamed.empty() || before.size > end || dead_log_records() > kFewRecords;
  if (!done.changed) return done;

  OBD_TRY(ensure_session());
  OBD_TRY(flush());
  uint64_t total = 0;
  for (const ByteRange& range : unnamed) total += range.length;
  for (const ByteRange& range : unnamed) {
    OBD_TRY(data_->punch_hole(range));
    data_dirty_ = true;
    done.freed += range.length;
    OBD_TRY(report_progress(report, "punching", done.freed, total));
  }
  if (before.size > end) {
    OBD_TRY(data_->truncate(end));
    data_dirty_ = true;
  }
  const uint64_t records = log_at_rest()->position().records;
  OBD_TRY(replace_log(header_, index_at_rest()));
  done.log_freed =
      (records - std::min(records, log_at_rest()->position().records)) * lsmt::kEntrySize;
  end_session();
  return done;
}

}  // namespace obd
