// A flat picture of an index, cell by cell, and its comparison with a real one.

#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <ostream>
#include <span>
#include <vector>

#include "core/index/extent.h"

namespace obd::test {

// The window of `cells` cells of `unit` sectors each, from `base` on. What is put into it lies on
// cell boundaries.
class FlatModel {
 public:
  FlatModel(Sectors base, Sectors unit, size_t cells) : base_(base), unit_(unit), cells_(cells) {}

  void put(const Extent& extent) {
    for (size_t done = 0; done < extent.length.count(); done += unit_.count()) {
      Cell& cell = cells_[cell_at(extent.logical + Sectors(done))];
      sectors_of(cell.kind) -= unit_;
      cell = {extent.kind, extent.layer, extent.physical};
      if (extent.kind == ExtentKind::data) cell.physical += Sectors(done);
      sectors_of(cell.kind) += unit_;
    }
  }

  // Whether all cells that [from, to) touches are of this kind.
  [[nodiscard]] bool is_all(ExtentKind kind, Sectors from, Sectors to) const {
    if (from >= to) return true;
    for (size_t i = cell_at(from); i <= cell_at(to - Sectors(1)); ++i) {
      if (cells_[i].kind != kind) return false;
    }
    return true;
  }
  [[nodiscard]] bool has_data(Sectors from, Sectors to) const {
    for (; from < to; from += Sectors(1)) {
      if (cells_[cell_at(from)].kind == ExtentKind::data) return true;
    }
    return false;
  }

  [[nodiscard]] Sectors base() const { return base_; }
  [[nodiscard]] Sectors unit() const { return unit_; }
  [[nodiscard]] size_t cell_count() const { return cells_.size(); }
  [[nodiscard]] Sectors cell_start(size_t cell) const {
    return base_ + Sectors(cell * unit_.count());
  }
  [[nodiscard]] Sectors end() const { return cell_start(cells_.size()); }
  [[nodiscard]] Sectors data_sectors() const { return data_; }
  [[nodiscard]] Sectors zero_sectors() const { return zero_; }
  [[nodiscard]] bool shows_the_same(const FlatModel& other) const { return cells_ == other.cells_; }

 private:
  struct Cell {
    ExtentKind kind = ExtentKind::hole;
    LayerNumber layer = 0;
    Sectors physical;
    bool operator==(const Cell&) const = default;
  };

  [[nodiscard]] size_t cell_at(Sectors sector) const {
    return (sector - base_).count() / unit_.count();
  }
  Sectors& sectors_of(ExtentKind kind) {
    return kind == ExtentKind::data ? data_ : kind == ExtentKind::zero ? zero_ : hole_;
  }

  Sectors base_;
  Sectors unit_;
  std::vector<Cell> cells_;
  Sectors data_;
  Sectors zero_;
  Sectors hole_;  // goes below zero and is never asked for
};

// All that an index finds in [from, to), asked for `step` extents at a time.
template <typename Index>
std::vector<Extent> find_all(const Index& index, Sectors from, Sectors to, size_t step) {
  std::vector<Extent> all;
  std::vector<Extent> buffer(step);
  while (true) {
    const size_t found = index.find(from, to, buffer);
    all.insert(all.end(), buffer.begin(), buffer.begin() + static_cast<ptrdiff_t>(found));
    if (found < step) return all;
    from = all.back().end();
  }
}

// Compares the whole of an index with the model; returns all its extents.
template <typename Index>
std::vector<Extent> expect_shows(const Index& index, const FlatModel& model) {
  std::vector<Extent> extents = find_all(index, Sectors(0), Sectors(~uint64_t{0}), 64);
  EXPECT_EQ(index.extent_count(), extents.size());
  EXPECT_EQ(index.data_sectors(), model.data_sectors());
  EXPECT_EQ(index.zero_sectors(), model.zero_sectors());

  FlatModel shown(model.base(), model.unit(), model.cell_count());
  Sectors done = model.base();
  for (const Extent& extent : extents) {
    const bool fits = extent.logical >= done && extent.length > Sectors(0) &&
                      extent.end() <= model.end() && extent.kind != ExtentKind::hole &&
                      (extent.kind == ExtentKind::data || extent.physical == Sectors(0));
    EXPECT_TRUE(fits) << "extent at " << extent.logical.count();
    if (!fits) return extents;
    shown.put(extent);
    done = extent.end();
  }
  EXPECT_TRUE(shown.shows_the_same(model));
  return extents;
}

// Compares what an index finds in [from, to) with the part there of all its extents.
template <typename Index>
void expect_finds(const Index& index, std::span<const Extent> extents, Sectors from, Sectors to,
                  size_t step) {
  std::vector<Extent> expected;
  for (const Extent& extent : extents) {
    if (std::max(extent.logical, from) < std::min(extent.end(), to))
      expected.push_back(extent.clipped(from, to));
  }
  EXPECT_EQ(find_all(index, from, to, step), expected)
      << "from " << from.count() << " to " << to.count() << " by " << step;
}

}  // namespace obd::test

namespace obd {

inline void PrintTo(const Extent& extent, std::ostream* out) {
  *out << "[" << extent.logical.count() << "+" << extent.length.count()
       << (extent.kind == ExtentKind::data ? " data " : " zero ") << extent.physical.count()
       << " layer " << int{extent.layer} << "]";
}

}  // namespace obd
