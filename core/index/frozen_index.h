// The index of the sealed layers: immutable, one sorted array merged over the whole stack.
//
// Lookup costs one binary search, however many layers there are. Neighbours that continue each
// other in the same layer are one extent.
//
// Thread-safety: immutable after construction; share freely.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/index/extent.h"

namespace obd {

class FrozenIndex {
 public:
  FrozenIndex() = default;

  // Merges the extents of a stack: layers[0] is the bottom. Each layer's extents must be sorted and
  // disjoint, of kind data or zero, and carry their layer number; physical sectors are at most
  // lsmt::kMaxPhysical. Extents at or past `disk_end` are dropped, one that crosses it is clipped.
  // Zero extents with nothing below are kept.
  static FrozenIndex merge(std::vector<std::vector<Extent>> layers, Sectors disk_end);

  // As LiveIndex::find.
  size_t find(Sectors from, Sectors to, std::span<Extent> out) const;

  // True when no extent of kind data lies in [from, to): it reads as zeros.
  [[nodiscard]] bool reads_as_zeros(Sectors from, Sectors to) const;

  [[nodiscard]] size_t extent_count() const { return begins_.size(); }
  [[nodiscard]] Sectors data_sectors() const { return data_sectors_; }  // of the merged index
  [[nodiscard]] Sectors zero_sectors() const { return zero_sectors_; }
  [[nodiscard]] size_t memory_bytes() const;

 private:
  struct Place {
    uint64_t length;
    uint64_t physical : 55;
    uint64_t is_zero : 1;
    uint64_t layer : 8;
  };

  void append_all(const std::vector<Extent>& extents);
  [[nodiscard]] Extent extent(size_t row) const;
  [[nodiscard]] size_t first_ending_after(Sectors sector) const;

  // Row i is the extent that begins at sector begins_[i].
  std::vector<uint64_t> begins_;
  std::vector<Place> places_;
  Sectors data_sectors_;
  Sectors zero_sectors_;
};

}  // namespace obd
