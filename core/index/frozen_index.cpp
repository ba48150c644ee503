// The frozen index: three-word rows in order of their first sector, and a table that leads to the
// few rows among which a sector is to be found by bisection. The table has about as many parts as
// there are rows, so on a disk that is written all over a part holds one or two; the worst case,
// all rows but one in one part, is a bisection of all. Rows and table are made in one pass each.

#include "core/index/frozen_index.h"

#include <algorithm>
#include <cassert>
#include <limits>

#include "core/index/stack_merge.h"

namespace obd {

FrozenIndex FrozenIndex::merge(const std::vector<std::vector<Extent>>& layers, Sectors disk_end) {
  return merge_layers(layers, disk_end);
}

FrozenIndex FrozenIndex::merge(const std::vector<std::vector<lsmt::PackedEntry>>& layers,
                               Sectors disk_end) {
  return merge_layers(layers, disk_end);
}

template <typename Layers>
FrozenIndex FrozenIndex::merge_layers(const Layers& layers, Sectors disk_end) {
  FrozenIndex index;
  size_t most = 0;
  for (const auto& layer : layers) most += layer.size();
  index.rows_.reserve(most);
  merge_stack(layers, disk_end, [&](const Extent& extent) { index.append(extent); });
  // That takes a copy, so not for the few rows that layers all over a disk hide of each other.
  if (index.rows_.size() < most - most / 64) index.rows_.shrink_to_fit();
  index.make_table();
  return index;
}

inline void FrozenIndex::append(const Extent& extent) {
  assert(extent.kind != ExtentKind::hole && extent.physical <= lsmt::kMaxPhysical);
  const bool is_zero = extent.kind == ExtentKind::zero;
  (is_zero ? zero_sectors_ : data_sectors_) += extent.length;
  const Row row{.begin = extent.logical.count(),
                .length = extent.length.count(),
                .physical = is_zero ? 0 : extent.physical.count() & lsmt::kMaxPhysical.count(),
                .is_zero = is_zero,
                .layer = extent.layer};
  if (!rows_.empty() && rows_.back().continues_in(row)) {
    rows_.back().length += row.length;
  } else {
    rows_.push_back(row);
  }
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

bool FrozenIndex::Row::continues_in(const Row& next) const {
  return end() == next.begin && layer == next.layer && is_zero == next.is_zero &&
         (is_zero || physical + length == next.physical);
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
