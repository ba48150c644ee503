// The index of a writable layer: a mutable map from logical sectors to extents.
//
// Holds disjoint extents, each at most lsmt::kMaxLength sectors long (so that it is one index
// entry), packed as 16-byte words in sorted leaves of 4 KiB. Neighbours that continue each other
// both logically and physically become one. Every logical sector is below lsmt::kAddressableEnd.
//
// Thread-safety: none; the owner locks (readers may share a const LiveIndex).
// Errors: only reserve() can fail, with bad_alloc; after it returned, the next insert() cannot, so
// that memory never disagrees with what has already been logged. An insert() for which there is no
// room finds its own, and then running out of memory ends the process.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/index/extent.h"

namespace obd {

class LiveIndex {
 public:
  LiveIndex() noexcept;
  ~LiveIndex();
  // A moved-from index may only be destroyed or assigned to.
  LiveIndex(LiveIndex&&) noexcept;
  LiveIndex& operator=(LiveIndex&&) noexcept;

  // Makes room for the next `inserts` inserts. Calls do not add up: the last one counts. Memory
  // that earlier calls set aside and nothing used is given back.
  void reserve(size_t inserts);
  // How many of them are left.
  [[nodiscard]] size_t reserved_inserts() const { return promised_inserts_; }

  // Puts an extent (kind data or zero; length 1 to lsmt::kMaxLength) over whatever was there.
  // `layer` is ignored: everything found here is reported as kUpperLayer.
  void insert(const Extent& extent) noexcept;

  // Writes the extents that overlap [from, to), in order and clipped to it, to `out`; returns how
  // many. When the buffer fills up, the search ended at out.back().end().
  size_t find(Sectors from, Sectors to, std::span<Extent> out) const;

  // True when every sector of [from, to) is in extents of this kind; `hole` means no extent at all.
  [[nodiscard]] bool is_all(ExtentKind kind, Sectors from, Sectors to) const;

  [[nodiscard]] size_t extent_count() const { return extent_count_; }
  [[nodiscard]] Sectors data_sectors() const { return data_sectors_; }
  [[nodiscard]] Sectors zero_sectors() const { return zero_sectors_; }
  [[nodiscard]] size_t memory_bytes() const;

 private:
  struct Entry;  // an extent in 16 bytes
  struct Leaf;   // an array of them
  struct Branch {
    std::unique_ptr<Leaf> leaf;
    size_t count = 0;  // entries in use, never 0 between two calls
  };
  // The entry branches_[leaf].leaf[index], or the place behind the leaf's last.
  struct Position {
    size_t leaf = 0;
    size_t index = 0;
  };

  [[nodiscard]] Entry& entry_at(Position at);
  [[nodiscard]] const Entry& entry_at(Position at) const;
  [[nodiscard]] Position first_ending_after(Sectors sector) const;

  [[nodiscard]] Entry* entry_before(Position at);
  [[nodiscard]] Position following(Position at) const;
  [[nodiscard]] Entry* entry_beginning(Position at, Sectors sector);

  bool replace_alone(Position at, const Entry& entry);
  Position carve(Position at, Sectors from, Sectors to);
  void erase_covered(Position at, Sectors to);
  void join_or_place(Position at, const Entry& entry);
  Position place(Position at, const Entry& entry);
  Position make_room(Position at);
  void erase_entries(Position at, size_t count);
  void entry_moved_front(Position at);
  [[nodiscard]] Sectors& sectors_of(const Entry& entry);

  void insert_leaf(size_t at);
  void remove_leaves(size_t first, size_t last);
  void merge_small_leaves(size_t around);

  // One item a leaf, in order: keys_[i] is where the first entry of branches_[i] begins.
  std::vector<uint64_t> keys_;
  std::vector<Branch> branches_;
  std::vector<std::unique_ptr<Leaf>> spares_;
  // What reserve() promised: so many more inserts, needing at most so many leaves, spares included.
  size_t promised_inserts_ = 0;
  size_t promised_leaves_ = 0;
  size_t extent_count_ = 0;
  Sectors data_sectors_;
  Sectors zero_sectors_;
};

}  // namespace obd
