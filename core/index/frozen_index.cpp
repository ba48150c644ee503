// The frozen index: three-word rows in order of their first sector, and a table that leads to the
// few rows among which a sector is to be found by bisection. The table has about as many parts as
// there are rows, so on a disk that is written all over a part holds one or two; the worst case,
// all rows but one in one part, is a bisection of all.
//
// merge() folds neighbouring layers in pairs, then the results in pairs, and so on: each round is
// linear in all extents together, and the number of rounds is the logarithm of the number of
// layers. Folding only neighbours keeps the order of the stack, whichever pair comes first.

#include "core/index/frozen_index.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <utility>

#include "core/format/lsmt.h"

namespace obd {

namespace {

using Extents = std::vector<Extent>;

// `upper` over `lower`: all of the one, and what it leaves uncovered of the other.
Extents overlay(const Extents& upper, const Extents& lower) {
  Extents merged;
  merged.reserve(upper.size() + lower.size());
  auto below = lower.begin();
  Sectors covered;  // what lies before it in `lower` is in `merged` or hidden
  const auto add_below_until = [&](Sectors stop) {
    for (; below != lower.end(); ++below) {
      if (below->end() <= covered) continue;
      if (std::max(below->logical, covered) >= stop) break;
      merged.push_back(below->clipped(covered, stop));
      if (below->end() > stop) break;  // the rest of it comes later
    }
  };
  for (const Extent& extent : upper) {
    add_below_until(extent.logical);
    merged.push_back(extent);
    covered = extent.end();
  }
  if (!lower.empty()) add_below_until(lower.back().end());
  return merged;
}

void clip(Extents& extents, Sectors disk_end) {
  while (!extents.empty() && extents.back().logical >= disk_end) extents.pop_back();
  if (!extents.empty()) extents.back() = extents.back().clipped(Sectors(0), disk_end);
}

bool continues_in(const Extent& extent, const Extent& next) {
  return extent.end() == next.logical && extent.kind == next.kind && extent.layer == next.layer &&
         (extent.kind == ExtentKind::zero || extent.physical + extent.length == next.physical);
}

}  // namespace

FrozenIndex FrozenIndex::merge(std::vector<Extents> layers, Sectors disk_end) {
  for (Extents& extents : layers) clip(extents, disk_end);
  while (layers.size() > 1) {
    for (size_t i = 0; i < layers.size(); i += 2) {
      Extents merged = std::move(layers[i]);
      if (i + 1 < layers.size()) {
        merged = overlay(layers[i + 1], merged);
        layers[i + 1] = {};  // the input may be large: free it early
      }
      layers[i / 2] = std::move(merged);
    }
    layers.resize((layers.size() + 1) / 2);
  }
  FrozenIndex index;
  if (!layers.empty()) index.append_all(layers.front());
  return index;
}

// Fills an empty index from sorted, disjoint extents, joining those that continue each other.
void FrozenIndex::append_all(const Extents& extents) {
  rows_.reserve(extents.size());
  for (auto next = extents.begin(); next != extents.end();) {
    Extent joined = *next;
    for (++next; next != extents.end() && continues_in(joined, *next); ++next) {
      joined.length += next->length;
    }
    assert(joined.kind != ExtentKind::hole && joined.physical <= lsmt::kMaxPhysical);
    const bool is_zero = joined.kind == ExtentKind::zero;
    rows_.push_back({.begin = joined.logical.count(),
                     .length = joined.length.count(),
                     .physical = is_zero ? 0 : joined.physical.count() & lsmt::kMaxPhysical.count(),
                     .is_zero = is_zero,
                     .layer = joined.layer});
    (is_zero ? zero_sectors_ : data_sectors_) += joined.length;
  }
  rows_.shrink_to_fit();
  make_table();
}

void FrozenIndex::make_table() {
  if (rows_.empty() || rows_.size() > std::numeric_limits<uint32_t>::max()) return;
  first_begin_ = rows_.front().begin;
  const uint64_t sectors = rows_.back().begin - first_begin_ + 1;
  while (sectors >> part_shift_ > rows_.size()) ++part_shift_;
  const uint64_t parts = ((sectors - 1) >> part_shift_) + 1;
  // One more, so that each part's rows end where the next one's begin.
  table_.reserve(parts + 1);
  for (uint32_t row = 0; row < rows_.size(); ++row) {
    const uint64_t part = (rows_[row].begin - first_begin_) >> part_shift_;
    while (table_.size() <= part) table_.push_back(row);
  }
  table_.push_back(static_cast<uint32_t>(rows_.size()));
}

Extent FrozenIndex::Row::extent() const {
  return {Sectors(begin), Sectors(length), Sectors(physical),
          is_zero ? ExtentKind::zero : ExtentKind::data, static_cast<LayerNumber>(layer)};
}

// The first row that ends after `sector`, or the end of the rows.
const FrozenIndex::Row* FrozenIndex::first_ending_after(uint64_t sector) const {
  const Row* const rows = rows_.data();
  const Row* first = rows;
  const Row* last = rows + rows_.size();
  if (!table_.empty()) {
    if (sector < first_begin_) return first;
    const uint64_t part =
        std::min<uint64_t>((sector - first_begin_) >> part_shift_, table_.size() - 2);
    last = rows + table_[part + 1];
    first = rows + table_[part];
  }
  const Row* after = std::upper_bound(
      first, last, sector, [](uint64_t wanted, const Row& row) { return wanted < row.begin; });
  return after != rows && after[-1].end() > sector ? after - 1 : after;
}

size_t FrozenIndex::find(Sectors from, Sectors to, std::span<Extent> out) const {
  if (from >= to || out.empty()) return 0;
  const Row* const end = rows_.data() + rows_.size();
  size_t found = 0;
  for (const Row* row = first_ending_after(from.count());
       row != end && row->begin < to.count() && found < out.size(); ++row) {
    out[found++] = row->extent().clipped(from, to);
  }
  return found;
}

bool FrozenIndex::reads_as_zeros(Sectors from, Sectors to) const {
  if (from >= to) return true;
  const Row* const end = rows_.data() + rows_.size();
  for (const Row* row = first_ending_after(from.count()); row != end && row->begin < to.count();
       ++row) {
    if (!row->is_zero) return false;
  }
  return true;
}

size_t FrozenIndex::memory_bytes() const {
  return sizeof(*this) + rows_.capacity() * sizeof(rows_[0]) +
         table_.capacity() * sizeof(table_[0]);
}

}  // namespace obd
