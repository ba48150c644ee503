// The frozen index: rows of two words in order, and a table that leads to the few rows among which
// a sector is to be found. The table has one or two parts for each row, so on a disk that is
// written all over a part holds one row or none. How many of the first kRowsAtOnce end before the
// sector is counted without a branch, as no processor could foresee which; only where rows are
// crowded does a bisection follow. The worst case, all rows but one in one part, is a bisection of
// all.
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

// So many rows are looked at from wherever the table leads to.
constexpr size_t kRowsAtOnce = 4;

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
         extent.length + next.length <= lsmt::kMaxLength &&
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
  rows_.reserve(extents.size() + kRowsAtOnce);
  for (auto next = extents.begin(); next != extents.end();) {
    Extent joined = *next;
    for (++next; next != extents.end() && continues_in(joined, *next); ++next) {
      joined.length += next->length;
    }
    assert(joined.kind != ExtentKind::hole && joined.length <= lsmt::kMaxLength);
    assert(joined.logical < lsmt::kAddressableEnd && joined.physical <= lsmt::kMaxPhysical);
    const bool is_zero = joined.kind == ExtentKind::zero;
    rows_.push_back({.length = joined.length.count() & lsmt::kMaxLength.count(),
                     .begin = joined.logical.count() & lsmt::kInvalidOffset.count(),
                     .physical = is_zero ? 0 : joined.physical.count() & lsmt::kMaxPhysical.count(),
                     .is_zero = is_zero,
                     .layer = joined.layer});
    (is_zero ? zero_sectors_ : data_sectors_) += joined.length;
    end_ = joined.end();
  }
  extent_count_ = rows_.size();
  // No row can end after the padding.
  rows_.insert(rows_.end(), kRowsAtOnce,
               {.length = lsmt::kMaxLength.count(),
                .begin = lsmt::kInvalidOffset.count(),
                .physical = 0,
                .is_zero = false,
                .layer = 0});
  rows_.shrink_to_fit();
  make_table();
}

void FrozenIndex::make_table() {
  if (extent_count_ == 0) return;
  // One part, of which nothing is expected, if there are more rows than its numbers can count.
  const uint64_t most_parts =
      extent_count_ > std::numeric_limits<uint32_t>::max() ? 1 : 2 * extent_count_;
  const uint64_t last_sector = end_.count() - 1;
  while (last_sector >> part_shift_ >= most_parts) ++part_shift_;
  table_.resize((last_sector >> part_shift_) + 1);
  size_t row = 0;
  for (uint64_t part = 0; part < table_.size(); ++part) {
    while (rows_[row].end() <= part << part_shift_) ++row;
    table_[part] = static_cast<uint32_t>(row);
  }
}

Extent FrozenIndex::Row::extent() const {
  return {Sectors(begin), Sectors(length), Sectors(physical),
          is_zero ? ExtentKind::zero : ExtentKind::data, static_cast<LayerNumber>(layer)};
}

std::span<const FrozenIndex::Row> FrozenIndex::rows_ending_after(Sectors sector) const {
  if (sector >= end_) return {};
  const uint64_t part = sector.count() >> part_shift_;
  const auto ends_before = [&](const Row& row) { return row.end() <= sector.count(); };
  const Row* const rows = rows_.data();
  const Row* row = rows + table_[part];
  size_t passed = 0;
  for (size_t i = 0; i < kRowsAtOnce; ++i) passed += ends_before(row[i]) ? 1 : 0;
  row += passed;
  const Row* const rows_end = rows + extent_count_;
  if (passed == kRowsAtOnce) {
    const Row* const last = part + 1 < table_.size() ? rows + table_[part + 1] : rows_end;
    row = std::partition_point(row, last, ends_before);
  }
  return {row, rows_end};
}

size_t FrozenIndex::find(Sectors from, Sectors to, std::span<Extent> out) const {
  if (from >= to) return 0;
  size_t found = 0;
  for (const Row& row : rows_ending_after(from)) {
    if (row.begin >= to.count() || found == out.size()) break;
    out[found++] = row.extent().clipped(from, to);
  }
  return found;
}

bool FrozenIndex::reads_as_zeros(Sectors from, Sectors to) const {
  if (from >= to) return true;
  for (const Row& row : rows_ending_after(from)) {
    if (row.begin >= to.count()) break;
    if (!row.is_zero) return false;
  }
  return true;
}

size_t FrozenIndex::memory_bytes() const {
  return sizeof(*this) + rows_.capacity() * sizeof(rows_[0]) +
         table_.capacity() * sizeof(table_[0]);
}

}  // namespace obd
