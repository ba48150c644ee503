// The frozen index: three-word rows in order of their first sector, searched by bisection.
//
// merge() folds neighbouring layers in pairs, then the results in pairs, and so on: each round is
// linear in all extents together, and the number of rounds is the logarithm of the number of
// layers. Folding only neighbours keeps the order of the stack, whichever pair comes first.

#include "core/index/frozen_index.h"

#include <algorithm>
#include <cassert>
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
  begins_.reserve(extents.size());
  places_.reserve(extents.size());
  for (auto next = extents.begin(); next != extents.end();) {
    Extent joined = *next;
    for (++next; next != extents.end() && continues_in(joined, *next); ++next) {
      joined.length += next->length;
    }
    assert(joined.kind != ExtentKind::hole && joined.physical <= lsmt::kMaxPhysical);
    const bool is_zero = joined.kind == ExtentKind::zero;
    begins_.push_back(joined.logical.count());
    places_.push_back(
        {.length = joined.length.count(),
         .physical = is_zero ? 0 : joined.physical.count() & lsmt::kMaxPhysical.count(),
         .is_zero = is_zero,
         .layer = joined.layer});
    (is_zero ? zero_sectors_ : data_sectors_) += joined.length;
  }
  begins_.shrink_to_fit();
  places_.shrink_to_fit();
}

Extent FrozenIndex::extent(size_t row) const {
  const Place& place = places_[row];
  return {Sectors(begins_[row]), Sectors(place.length), Sectors(place.physical),
          place.is_zero ? ExtentKind::zero : ExtentKind::data,
          static_cast<LayerNumber>(place.layer)};
}

// The first row that ends after `sector`, or the number of rows.
size_t FrozenIndex::first_ending_after(Sectors sector) const {
  const auto after = std::upper_bound(begins_.begin(), begins_.end(), sector.count());
  const auto row = static_cast<size_t>(after - begins_.begin());
  return row > 0 && extent(row - 1).end() > sector ? row - 1 : row;
}

size_t FrozenIndex::find(Sectors from, Sectors to, std::span<Extent> out) const {
  if (from >= to || out.empty()) return 0;
  size_t found = 0;
  for (size_t row = first_ending_after(from);
       row < begins_.size() && begins_[row] < to.count() && found < out.size(); ++row) {
    out[found++] = extent(row).clipped(from, to);
  }
  return found;
}

bool FrozenIndex::reads_as_zeros(Sectors from, Sectors to) const {
  if (from >= to) return true;
  for (size_t row = first_ending_after(from); row < begins_.size() && begins_[row] < to.count();
       ++row) {
    if (!places_[row].is_zero) return false;
  }
  return true;
}

size_t FrozenIndex::memory_bytes() const {
  return sizeof(*this) + begins_.capacity() * sizeof(begins_[0]) +
         places_.capacity() * sizeof(places_[0]);
}

}  // namespace obd
