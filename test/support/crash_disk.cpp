#include "test/support/crash_disk.h"

#include <algorithm>
#include <array>
#include <set>

#include "core/base/units.h"
#include "core/io/file.h"

namespace obd::test {
namespace {

constexpr uint64_t kSectorsPerPage = SparseBytes::kPageSize / kSectorSize;

void apply(const TraceEntry& entry, SparseBytes& bytes) {
  if (entry.kind == TraceKind::write) bytes.write(entry.data, entry.offset);
  if (entry.kind == TraceKind::truncate) bytes.truncate(entry.length);
  if (entry.kind == TraceKind::punch) bytes.punch({entry.offset, entry.length});
}

void apply(const TraceEntry& entry, std::map<std::string, uint64_t>& names) {
  if (entry.kind == TraceKind::create) names[entry.path] = entry.file;
  if (entry.kind == TraceKind::remove) names.erase(entry.path);
  if (entry.kind == TraceKind::rename) {
    const auto from = names.find(entry.path);
    if (from != names.end() && from->second == entry.file) names.erase(from);
    names[entry.target] = entry.file;
  }
}

// The bytes that an operation changes; a truncation or hole ends at `limit` at the latest.
ByteRange touched_range(const TraceEntry& entry, uint64_t limit) {
  if (entry.kind == TraceKind::write) return {entry.offset, entry.data.size()};
  const uint64_t begin = entry.kind == TraceKind::truncate ? entry.length : entry.offset;
  if (begin >= limit) return {begin, 0};
  const uint64_t length =
      entry.kind == TraceKind::truncate ? limit - begin : std::min(entry.length, limit - begin);
  return {begin, length};
}

// Whether nothing of the sector, which it touches, is left after an operation.
bool empties(const TraceEntry& entry, uint64_t sector_begin) {
  return (entry.kind == TraceKind::truncate && entry.length <= sector_begin) ||
         (entry.kind == TraceKind::punch && entry.offset <= sector_begin &&
          entry.offset + entry.length >= sector_begin + kSectorSize);
}

// What an operation makes of one sector's bytes.
void apply_to_sector(const TraceEntry& entry, ByteRange range, uint64_t sector_begin,
                     std::span<std::byte, kSectorSize> sector) {
  const uint64_t begin = std::max(range.offset, sector_begin);
  const uint64_t end = std::min(range.offset + range.length, sector_begin + kSectorSize);
  if (begin >= end) return;
  const auto out = sector.subspan(begin - sector_begin, end - begin);
  if (entry.kind == TraceKind::write) {
    const auto data = std::span(entry.data).subspan(begin - range.offset, end - begin);
    std::copy(data.begin(), data.end(), out.begin());
  } else {
    std::fill(out.begin(), out.end(), std::byte{0});
  }
}

}  // namespace

CrashDisk::CrashDisk(const DiskState& start, std::span<const TraceEntry> trace, uint64_t seed)
    : trace_(trace),
      failed_syncs_(seed),
      next_file_(start.next_file),
      stable_names_(start.names),
      cached_names_(start.names) {
  for (const auto& [number, bytes] : start.files) files_[number] = {bytes, bytes, {}};
}

void CrashDisk::advance_to(size_t cut) {
  for (; cut_ < cut; ++cut_) {
    const TraceEntry& entry = trace_[cut_];
    switch (entry.kind) {
      case TraceKind::write:
      case TraceKind::truncate:
      case TraceKind::punch: {
        FileState& file = files_[entry.file];
        apply(entry, file.cached);
        file.unsynced.push_back({&entry, cut_});
        break;
      }
      case TraceKind::sync_end:
      case TraceKind::sync_failed:
        end_sync(entry);
        break;
      case TraceKind::create:
        files_[entry.file];
        next_file_ = std::max(next_file_, entry.file + 1);
        [[fallthrough]];
      case TraceKind::rename:
      case TraceKind::remove:
        apply(entry, cached_names_);
        unsynced_names_.push_back(&entry);
        break;
      case TraceKind::sync_directory:
        std::erase_if(unsynced_names_, [&](const TraceEntry* names) {
          if (directory_of(names->path) != entry.path) return false;
          apply(*names, stable_names_);
          return true;
        });
        break;
      case TraceKind::sync_begin:
      case TraceKind::mark:
        break;
    }
  }
}

void CrashDisk::end_sync(const TraceEntry& entry) {
  FileState& file = files_[entry.file];
  const auto first_uncovered =
      std::find_if(file.unsynced.begin(), file.unsynced.end(),
                   [&](const Unsynced& one) { return one.position >= entry.begun; });
  const std::span<const Unsynced> covered(file.unsynced.begin(), first_uncovered);
  if (entry.kind == TraceKind::sync_end) {
    for (const Unsynced& one : covered) apply(*one.entry, file.stable);
  } else {
    file.stable = choose_file(file.stable, covered, failed_syncs_);
  }
  file.unsynced.erase(file.unsynced.begin(), first_uncovered);
}

SparseBytes CrashDisk::choose_file(const SparseBytes& stable, std::span<const Unsynced> unsynced,
                                   Chooser& chooser) {
  SparseBytes result = stable;
  if (unsynced.empty()) return result;
  chooser.begin_group(unsynced.size());

  // The sizes that the file has had.
  std::vector<uint64_t> sizes{stable.size()};
  std::vector<size_t> resizes;
  uint64_t limit = stable.size();
  for (size_t i = 0; i < unsynced.size(); ++i) {
    const TraceEntry& entry = *unsynced[i].entry;
    uint64_t size = sizes.back();
    if (entry.kind == TraceKind::write) size = std::max(size, entry.offset + entry.data.size());
    if (entry.kind == TraceKind::truncate) size = entry.length;
    if (size == sizes.back()) continue;
    sizes.push_back(size);
    resizes.push_back(i);
    limit = std::max(limit, size);
  }

  // The sectors that unsynced operations change, and which operations those are. Of truncations and
  // holes, only sectors that can hold anything matter.
  std::map<uint64_t, std::vector<size_t>> sectors;
  for (const Unsynced& one : unsynced) {
    if (one.entry->kind != TraceKind::write) continue;
    const ByteRange range = touched_range(*one.entry, limit);
    for (uint64_t s = range.offset / kSectorSize; s * kSectorSize < range.offset + range.length;
         ++s) {
      sectors[s];
    }
  }
  for (const Unsynced& one : unsynced) {
    if (one.entry->kind == TraceKind::write) continue;
    const ByteRange range = touched_range(*one.entry, limit);
    stable.for_each_page(range.offset / SparseBytes::kPageSize, [&](uint64_t page) {
      if (page * SparseBytes::kPageSize >= range.offset + range.length) return;
      for (uint64_t s = 0; s < kSectorsPerPage; ++s) sectors[page * kSectorsPerPage + s];
    });
  }
  for (size_t i = 0; i < unsynced.size(); ++i) {
    const ByteRange range = touched_range(*unsynced[i].entry, limit);
    for (auto it = sectors.lower_bound(range.offset / kSectorSize);
         it != sectors.end() && it->first * kSectorSize < range.offset + range.length; ++it) {
      it->second.push_back(i);
    }
  }

  std::map<uint64_t, uint64_t> emptied;  // page: its sectors that ended in a hole
  std::array<std::byte, kSectorSize> content;
  for (const auto& [sector, touching] : sectors) {
    const size_t reached = touching.empty() ? 0 : chooser.reached(touching);
    const uint64_t begin = sector * kSectorSize;
    if (reached == 0 && begin < stable.size()) continue;
    content.fill(std::byte{0});
    if (reached == 0) {
      chooser.fill_unwritten(content);
    } else {
      stable.read(content, begin);
    }
    for (size_t i = 0; i < reached; ++i) {
      const TraceEntry& entry = *unsynced[touching[i]].entry;
      apply_to_sector(entry, touched_range(entry, limit), begin, content);
    }
    result.write(content, begin);
    // A truncation may begin within the sector, whose first part then stays.
    if (reached > 0 && empties(*unsynced[touching[reached - 1]].entry, begin)) {
      ++emptied[sector / kSectorsPerPage];
    }
  }
  for (const auto& [page, count] : emptied) {
    if (count == kSectorsPerPage) {
      result.punch({page * SparseBytes::kPageSize, SparseBytes::kPageSize});
    }
  }

  const size_t resized = resizes.empty() ? 0 : chooser.reached(resizes);
  uint64_t size = sizes[resized];
  if (resized > 0 && size > sizes[resized - 1] &&
      unsynced[resizes[resized - 1]].entry->kind == TraceKind::write) {
    size = sizes[resized - 1] + chooser.reached_bytes(size - sizes[resized - 1]);
  }
  // What lies past the size on the device is never seen: it reads as zeros if the file grows again.
  result.truncate(std::min(size, result.size()));
  result.truncate(size);
  return result;
}

DiskState CrashDisk::power_cut(Chooser& chooser) const {
  DiskState disk;
  disk.next_file = next_file_;
  disk.names = stable_names_;
  if (!unsynced_names_.empty()) {
    chooser.begin_group(unsynced_names_.size());
    for (size_t i = 0; i < unsynced_names_.size(); ++i) {
      const size_t touching[] = {i};
      if (chooser.reached(touching) == 1) apply(*unsynced_names_[i], disk.names);
    }
  }
  for (const auto& [name, number] : disk.names) {
    if (disk.files.contains(number)) continue;
    const FileState& file = files_.at(number);
    disk.files[number] = choose_file(file.stable, file.unsynced, chooser);
  }
  return disk;
}

size_t CrashDisk::cut_short(size_t bytes) const {
  if (cut_ == trace_.size() || trace_[cut_].kind != TraceKind::write) return 0;
  const TraceEntry& next = trace_[cut_];
  if (bytes >= next.data.size()) return next.data.size();
  const uint64_t end = next.offset + bytes;
  if (end >= files_.at(next.file).cached.size()) return bytes;
  const uint64_t sector_begin = align_down(end, kSectorSize);
  return sector_begin > next.offset ? sector_begin - next.offset : 0;
}

DiskState CrashDisk::server_death(size_t bytes_of_next) const {
  DiskState disk;
  disk.next_file = next_file_;
  disk.names = cached_names_;
  for (const auto& [name, number] : disk.names) disk.files[number] = files_.at(number).cached;
  if (cut_ < trace_.size() && trace_[cut_].kind == TraceKind::write) {
    const TraceEntry& next = trace_[cut_];
    const auto file = disk.files.find(next.file);
    if (file != disk.files.end()) {
      const size_t count = std::min(bytes_of_next, next.data.size());
      file->second.write(std::span(next.data).first(count), next.offset);
    }
  }
  return disk;
}

size_t CrashDisk::unsynced() const {
  size_t count = unsynced_names_.size();
  for (const auto& [number, file] : files_) count += file.unsynced.size();
  return count;
}

Trace truncated_trace(std::span<const TraceEntry> trace, size_t cut, size_t bytes_of_next) {
  Trace result(trace.begin(), trace.begin() + static_cast<ptrdiff_t>(cut));
  if (cut < trace.size() && trace[cut].kind == TraceKind::write && bytes_of_next > 0) {
    result.push_back(trace[cut]);
    result.back().data.resize(std::min(bytes_of_next, trace[cut].data.size()));
  }
  return result;
}

}  // namespace obd::test
