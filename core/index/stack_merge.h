// Merging the indexes of a stack: what of each layer's extents shows.
//
// One pass over all extents in order of where they begin. Whose comes next is told by a tournament
// of the layers' next ones, in as many steps as the number of layers has bits; of the extents that
// have begun and not ended, at most one a layer, the topmost layer's shows. Nothing is copied but
// into the result.
//
// Thread-safety: a merge belongs to one thread.

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "core/format/lsmt.h"
#include "core/index/extent.h"

namespace obd {

// Which layer's next extent begins first: a tree of matches, each of which keeps its loser, so that
// a change at a leaf is played up to the root along one path.
class Tournament {
 public:
  static constexpr uint64_t kNone = (uint64_t{1} << 56) - 1;

  explicit Tournament(size_t layers) : leaves_(std::bit_ceil(layers)) {
    // Nothing beats the empty matches, so each player who comes first to one stays and waits there.
    for (size_t layer = layers; layer < leaves_; ++layer) enter(layer, kNone);
  }

  // Where a layer's next extent begins (before kNone), or kNone when there is no other. First once
  // for each layer, then for the winner alone.
  void enter(size_t layer, uint64_t begin) {
    uint64_t winner = begin << 8 | (layer + 1);
    for (size_t match = (leaves_ + layer) / 2; match > 0; match /= 2) {
      const uint64_t other = losers_[match];
      // Nobody can foresee who wins, so this must not become a branch.
      const uint64_t difference = (winner ^ other) & -static_cast<uint64_t>(other < winner);
      losers_[match] = other ^ difference;
      winner ^= difference;
    }
    winner_ = winner;
  }

  [[nodiscard]] uint64_t begin() const { return winner_ >> 8; }
  [[nodiscard]] size_t winner() const { return (winner_ & 0xFF) - 1; }

 private:
  size_t leaves_;
  uint64_t winner_ = 0;
  std::array<uint64_t, kMaxLowers + 1> losers_{};
};

// The extents that have begun, one a layer.
class BegunExtents {
 public:
  void add(const Extent& extent) {
    extents_[extent.layer] = extent;
    words_[extent.layer / 64] |= bit(extent.layer);
  }
  [[nodiscard]] bool empty() const { return (words_[0] | words_[1] | words_[2] | words_[3]) == 0; }
  void remove(const Extent& extent) { words_[extent.layer / 64] &= ~bit(extent.layer); }

  // The topmost layer's; null when there is none.
  [[nodiscard]] const Extent* top() const {
    for (size_t i = words_.size(); i-- > 0;) {
      if (words_[i] != 0) {
        return &extents_[64 * i + static_cast<size_t>(std::bit_width(words_[i])) - 1];
      }
    }
    return nullptr;
  }

 private:
  static uint64_t bit(LayerNumber layer) { return uint64_t{1} << layer % 64; }

  std::array<uint64_t, 4> words_{};
  std::array<Extent, kMaxLowers> extents_;
};

inline const Extent& extent_of(const Extent& extent, size_t) { return extent; }
inline Extent extent_of(const lsmt::PackedEntry& entry, size_t layer) {
  const bool zeroed = entry.zeroed();
  return {entry.offset(), entry.length(), zeroed ? Sectors() : entry.physical(),
          zeroed ? ExtentKind::zero : ExtentKind::data, static_cast<LayerNumber>(layer)};
}

// Calls emit(extent) for each part of an extent that shows in [0, disk_end), in order. `layers` are
// those of each layer, the bottom first, sorted and disjoint: as Extent, whose layer numbers
// ascend, or as lsmt::PackedEntry, numbered from 0.
template <typename Row, typename Emit>
void merge_stack(const std::vector<std::vector<Row>>& layers, Sectors disk_end, Emit&& emit) {
  if (layers.empty()) return;
  std::vector<const Row*> next(layers.size());
  Tournament tournament(layers.size());
  const auto enter_next = [&](size_t layer) {
    const std::vector<Row>& rows = layers[layer];
    const bool there = next[layer] != rows.data() + rows.size();
    tournament.enter(layer,
                     there ? extent_of(*next[layer], layer).logical.count() : Tournament::kNone);
  };
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    next[layer] = layers[layer].data();
    enter_next(layer);
  }

  BegunExtents begun;
  Sectors done;  // what shows before it has been emitted
  // All that shows before `begin`, where an extent of `layer` hides what lies below.
  const auto emit_until = [&](Sectors begin, size_t layer) {
    while (const Extent* top = begun.top()) {
      const Sectors from = std::max(done, top->logical);
      const bool ends = top->end() <= begin;
      if (!ends && top->layer > layer) return;  // nothing changes at `begin`
      const Sectors to = ends ? top->end() : begin;
      if (from < to) {
        emit(top->clipped(from, to));
        done = to;
      }
      if (!ends) return;
      begun.remove(*top);
    }
  };
  while (tournament.begin() < disk_end.count()) {
    const size_t layer = tournament.winner();
    const Extent extent = extent_of(*next[layer]++, layer);
    enter_next(layer);
    if (!begun.empty()) emit_until(extent.logical, extent.layer);
    if (begun.empty() && extent.end().count() <= std::min(tournament.begin(), disk_end.count())) {
      emit(extent);  // most do not meet another
    } else {
      begun.add(extent);
    }
  }
  emit_until(disk_end, kUpperLayer);
}

}  // namespace obd
