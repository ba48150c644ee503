// The frozen index: rows of two words in order, and a table that leads to the few rows among which
// a sector is to be found. The table has one or two parts for each row, so on a disk that is
// written all over a part holds one row or none. How many of the first kRowsAtOnce end before the
// sector is counted without a branch, as no processor could foresee which; only where rows are
// crowded does a bisection follow. The worst case, all rows but one in one part, is a bisection of
// all. Rows and table are made in one pass each.

#include "core/index/frozen_index.h"

#include <algorithm>
#include <cassert>
#include <limits>

#include "core/index/stack_merge.h"

namespace obd {

namespace {

// So many rows are looked at from wherever the table leads to.
constexpr size_t kRowsAtOnce = 4;

}  // namespace

FrozenIndex FrozenIndex::merge(const std::vector<std::vector<Extent>>& layers, Sectors disk_end) {
  return merge_layers(layers, disk_end);
}

FrozenIndex FrozenIndex::merge(const std::vector<std::vector<lsmt::PackedEntry>>& layers,
                               Sectors disk_end) {
  return merge_layers(layers, disk_end);
}

template <typename Layers>
FrozenIndex FrozenIndex::merge_layers(const Layers& layers, Sectors disk_end) {
  // An entry may reach past what entries can begin at, and so past what a row can.
  disk_end = std::min(disk_end, lsmt::kAddressableEnd);
  FrozenIndex index;
  size_t most = 0;
  for (const auto& layer : layers) most += layer.size();
  index.rows_.reserve(most + kRowsAtOnce);
  merge_stack(layers, disk_end, [&](const Extent& extent) { index.append(extent); });
  index.extent_count_ = index.rows_.size();
  // No row can end after the padding.
  index.rows_.insert(index.rows_.end(), kRowsAtOnce,
                     {.length = lsmt::kMaxLength.count(),
                      .begin = lsmt::kInvalidOffset.count(),
                      .physical = 0,
                      .is_zero = false,
                      .layer = 0});
  // That takes a copy, so not for the few rows that layers all over a disk hide of each other.
  if (index.rows_.size() < most - most / 64) index.rows_.shrink_to_fit();
  index.make_table();
  return index;
}

inline void FrozenIndex::append(const Extent& extent) {
  assert(extent.kind != ExtentKind::hole && extent.length <= lsmt::kMaxLength);
  assert(extent.logical < lsmt::kAddressableEnd && extent.physical <= lsmt::kMaxPhysical);
  const bool is_zero = extent.kind == ExtentKind::zero;
  (is_zero ? zero_sectors_ : data_sectors_) += extent.length;
  end_ = extent.end();
  const Row row{.length = extent.length.count() & lsmt::kMaxLength.count(),
                .begin = extent.logical.count() & lsmt::kInvalidOffset.count(),
                .physical = is_zero ? 0 : extent.physical.count() & lsmt::kMaxPhysical.count(),
                .is_zero = is_zero,
                .layer = extent.layer};
  if (!rows_.empty() && rows_.back().continues_in(row)) {
    rows_.back().length = (rows_.back().length + row.length) & lsmt::kMaxLength.count();
  } else {
    rows_.push_back(row);
  }
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

bool FrozenIndex::Row::continues_in(const Row& next) const {
  return end() == next.begin && layer == next.layer && is_zero == next.is_zero &&
         Sectors(length) + Sectors(next.length) <= lsmt::kMaxLength &&
         (is_zero || physical + length == next.physical);
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
