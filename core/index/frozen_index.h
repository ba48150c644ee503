// The index of the sealed layers: immutable, one sorted array merged over the whole stack.
//
// Lookup costs one step of a table and a short binary search, however many layers there are.
// Neighbours that continue each other in the same layer are one extent.
//
// Thread-safety: immutable after construction; share freely.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/format/lsmt.h"
#include "core/index/extent.h"

namespace obd {

class FrozenIndex {
 public:
  FrozenIndex() = default;

  // Merges the extents of a stack: layers[0] is the bottom. Each layer's extents must be sorted and
  // disjoint, of kind data or zero, and carry their layer number; physical sectors are at most
  // lsmt::kMaxPhysical. Extents at or past `disk_end` are dropped, one that crosses it is clipped.
  // Zero extents with nothing below are kept.
  static FrozenIndex merge(const std::vector<std::vector<Extent>>& layers, Sectors disk_end);
  // The same of the layers' own indexes (SealedLayer::take_index()); layers[i] is layer i.
  static FrozenIndex merge(const std::vector<std::vector<lsmt::PackedEntry>>& layers,
                           Sectors disk_end);

  // As LiveIndex::find.
  size_t find(Sectors from, Sectors to, std::span<Extent> out) const;

  // True when no extent of kind data lies in [from, to): it reads as zeros.
  [[nodiscard]] bool reads_as_zeros(Sectors from, Sectors to) const;

  [[nodiscard]] size_t extent_count() const { return rows_.size(); }
  [[nodiscard]] Sectors data_sectors() const { return data_sectors_; }  // of the merged index
  [[nodiscard]] Sectors zero_sectors() const { return zero_sectors_; }
  [[nodiscard]] size_t memory_bytes() const;

 private:
  struct Row {
    uint64_t begin;
    uint64_t length;
    uint64_t physical : 55;
    uint64_t is_zero : 1;
    uint64_t layer : 8;

    [[nodiscard]] uint64_t end() const { return begin + length; }
    [[nodiscard]] Extent extent() const;
    [[nodiscard]] bool continues_in(const Row& next) const;
  };

  template <typename Layers>
  static FrozenIndex merge_layers(const Layers& layers, Sectors disk_end);
  void append(const Extent& extent);
  void make_table();
  [[nodiscard]] const Row* first_ending_after(uint64_t sector) const;

  std::vector<Row> rows_;  // in order of their begins
  // The sectors from first_begin_ on in equal parts of 2^part_shift_, about one for each row:
  // table_[i] is the number of the first row that begins in part i or after it. Empty when there
  // are no rows, or more than its numbers can count.
  std::vector<uint32_t> table_;
  uint64_t first_begin_ = 0;
  unsigned part_shift_ = 0;
  Sectors data_sectors_;
  Sectors zero_sectors_;
};

}  // namespace obd
