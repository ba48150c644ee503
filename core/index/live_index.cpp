// The live index: a B+ tree of two levels.
//
// The upper level is two parallel arrays in order of the leaves: the first sector of each leaf,
// which is all that a search reads, and the leaf with its number of entries. A leaf holds up to 256
// entries, sorted and disjoint. Ten million extents are some fifty thousand leaves, so moving the
// upper level's tail when a leaf is added costs little beside the 128 inserts that led to it.
//
// insert() first carves the new range out of what is there (cuts the extents at its two edges,
// erases those between) and then puts the new entry into the gap, or lengthens a neighbour.
//
// Invariant that bounds the memory: between two calls no leaf is empty, and two leaves side by side
// hold more than kMergeLimit entries together. It follows that E entries need at most
// 2E / (kMergeLimit + 1) + 1 leaves. One insert adds at most two entries and takes at most one
// leaf: if both of its entries need room, the second finds the room that the first one made.
// reserve() counts on both.
//
// A full leaf is split in the middle, except when the new entry belongs at its edge: then the entry
// goes to the neighbour or starts a leaf of its own, so that ascending writes leave full leaves.

#include "core/index/live_index.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <utility>

#include "core/format/lsmt.h"

namespace obd {

namespace {

constexpr size_t kLeafEntries = 256;
constexpr size_t kMergeLimit = kLeafEntries / 2;
constexpr size_t kMostEntriesPerInsert = 2;
constexpr size_t kPrefetchedParts = 16;
// Emptied leaves kept for later splits although nobody reserved them.
constexpr size_t kKeptSpares = 16;

constexpr unsigned kLengthBits = 14;
constexpr uint64_t kLengthMask = (uint64_t{1} << kLengthBits) - 1;
static_assert(lsmt::kMaxLength.count() == kLengthMask);
static_assert(lsmt::kAddressableEnd.count() < uint64_t{1} << (64 - kLengthBits));

constexpr uint64_t kZeroPlace = ~uint64_t{0};

// Room for `count` items, growing by doubling so that many small calls cost little.
template <typename T>
void reserve_room(std::vector<T>& items, size_t count) {
  if (items.capacity() < count) items.reserve(std::max(count, items.capacity() * 2));
}

}  // namespace

struct LiveIndex::Entry {
  uint64_t range;  // offset in the high 50 bits, so that ranges sort by it; length in the low 14
  uint64_t place;  // physical sector, or kZeroPlace

  static uint64_t pack(Sectors offset, Sectors length) {
    return offset.count() << kLengthBits | length.count();
  }
  static Entry from(const Extent& extent) {
    return {pack(extent.logical, extent.length),
            extent.kind == ExtentKind::zero ? kZeroPlace : extent.physical.count()};
  }
  [[nodiscard]] Extent extent() const {
    return {offset(), length(), is_zero() ? Sectors(0) : Sectors(place),
            is_zero() ? ExtentKind::zero : ExtentKind::data, kUpperLayer};
  }

  [[nodiscard]] Sectors offset() const { return Sectors(range >> kLengthBits); }
  [[nodiscard]] Sectors length() const { return Sectors(range & kLengthMask); }
  [[nodiscard]] Sectors end() const { return offset() + length(); }
  [[nodiscard]] bool is_zero() const { return place == kZeroPlace; }

  void set_end(Sectors end) { range = pack(offset(), end - offset()); }
  // Cuts the part before `begin` off.
  void set_begin(Sectors begin) {
    if (!is_zero()) place += (begin - offset()).count();
    range = pack(begin, end() - begin);
  }

  // True when `next` goes on where this ends and both fit in one entry.
  [[nodiscard]] bool continues_in(const Entry& next) const {
    return end() == next.offset() && length() + next.length() <= lsmt::kMaxLength &&
           (is_zero() ? next.is_zero() : place + length().count() == next.place);
  }
};

struct LiveIndex::Leaf {
  std::array<Entry, kLeafEntries> entries;
};

LiveIndex::LiveIndex() noexcept = default;
LiveIndex::~LiveIndex() = default;
LiveIndex::LiveIndex(LiveIndex&&) noexcept = default;
LiveIndex& LiveIndex::operator=(LiveIndex&&) noexcept = default;

LiveIndex::Entry& LiveIndex::entry_at(Position at) {
  return branches_[at.leaf].leaf->entries[at.index];
}

const LiveIndex::Entry& LiveIndex::entry_at(Position at) const {
  return branches_[at.leaf].leaf->entries[at.index];
}

Sectors& LiveIndex::sectors_of(const Entry& entry) {
  return entry.is_zero() ? zero_sectors_ : data_sectors_;
}

// Of the entries that end after `sector`, the first in the leaf whose range of keys holds `sector`;
// behind that leaf's last entry when there is none in it. There must be a leaf.
LiveIndex::Position LiveIndex::first_ending_after(Sectors sector) const {
  const auto key = std::upper_bound(keys_.begin(), keys_.end(), sector.count());
  const size_t leaf = key == keys_.begin() ? 0 : static_cast<size_t>(key - keys_.begin()) - 1;
  const Entry* const begin = branches_[leaf].leaf->entries.data();
  const Entry* const end = begin + branches_[leaf].count;
  // A leaf is seldom in the cache: fetch what the search may look at first all at once, rather than
  // wait for one after the other.
  for (size_t i = 1; i < kPrefetchedParts; ++i) {
    __builtin_prefetch(begin + i * branches_[leaf].count / kPrefetchedParts);
  }
  // Any entry that begins at or before `sector` is less than or equal to this.
  const uint64_t last = Entry::pack(sector, lsmt::kMaxLength);
  const Entry* const after = std::upper_bound(
      begin, end, last, [](uint64_t range, const Entry& entry) { return range < entry.range; });
  const auto index = static_cast<size_t>(after - begin);
  return {leaf, index > 0 && entry_at({leaf, index - 1}).end() > sector ? index - 1 : index};
}

// The last entry before `at`, or nullptr.
LiveIndex::Entry* LiveIndex::entry_before(Position at) {
  if (at.index > 0) return &entry_at({at.leaf, at.index - 1});
  if (at.leaf == 0) return nullptr;
  return &entry_at({at.leaf - 1, branches_[at.leaf - 1].count - 1});
}

// Where the first entry at or after `at` is, or would be if there were one more leaf.
LiveIndex::Position LiveIndex::following(Position at) const {
  return at.index < branches_[at.leaf].count ? at : Position{at.leaf + 1, 0};
}

// The first entry at or after `at` if it begins with this sector, else nullptr.
LiveIndex::Entry* LiveIndex::entry_beginning(Position at, Sectors sector) {
  const Position next = following(at);
  // The key spares a look into another leaf.
  if (next.index == 0 && (next.leaf == branches_.size() || keys_[next.leaf] != sector.count())) {
    return nullptr;
  }
  Entry& entry = entry_at(next);
  return entry.offset() == sector ? &entry : nullptr;
}

void LiveIndex::reserve(size_t inserts) {
  inserts = std::min<size_t>(inserts, lsmt::kAddressableEnd.count());
  const size_t most_entries = extent_count_ + kMostEntriesPerInsert * inserts;
  // One leaf more than the invariant says: it holds between inserts, and one may need a leaf before
  // it gives others back.
  const size_t most_leaves = 2 * most_entries / (kMergeLimit + 1) + 2;
  const size_t promise = std::min(branches_.size() + inserts, most_leaves);
  const size_t spares = promise - branches_.size();

  reserve_room(keys_, promise);
  reserve_room(branches_, promise);
  reserve_room(spares_, std::max(promise, kKeptSpares));
  if (spares_.size() > spares + kKeptSpares) spares_.resize(spares + kKeptSpares);
  while (spares_.size() < spares) spares_.push_back(std::make_unique_for_overwrite<Leaf>());
  promised_inserts_ = inserts;
  promised_leaves_ = promise;
}

void LiveIndex::insert(const Extent& extent) noexcept {
  assert(extent.kind != ExtentKind::hole);
  assert(extent.length > Sectors(0) && extent.length <= lsmt::kMaxLength);
  assert(extent.logical < lsmt::kAddressableEnd && extent.end() <= lsmt::kAddressableEnd);

  if (branches_.empty()) insert_leaf(0);
  const Entry entry = Entry::from(extent);
  Position at = first_ending_after(extent.logical);
  if (!replace_alone(at, entry)) {
    const size_t extents_before = extent_count_;
    at = carve(at, extent.logical, extent.end());
    const size_t extents_carved = extent_count_;
    join_or_place(at, entry);
    const bool has_erased = extents_carved < extents_before || extent_count_ < extents_carved;
    if (has_erased) merge_small_leaves(at.leaf);
  }
  if (promised_inserts_ > 0) --promised_inserts_;
}

// Does the whole insert if there is an entry at `at` with the same range and the new one continues
// no neighbour. That is what overwriting single blocks comes to, and nothing has to move for it.
bool LiveIndex::replace_alone(Position at, const Entry& entry) {
  if (at.index == branches_[at.leaf].count) return false;
  Entry& old = entry_at(at);
  if (old.range != entry.range) return false;
  const Entry* const before = entry_before(at);
  const Entry* const after = entry_beginning({at.leaf, at.index + 1}, entry.end());
  if (before != nullptr && before->continues_in(entry)) return false;
  if (after != nullptr && entry.continues_in(*after)) return false;
  sectors_of(old) -= old.length();
  old = entry;
  sectors_of(old) += old.length();
  return true;
}

// Takes [from, to) out of all entries, given first_ending_after(from); returns where an entry for
// the range belongs.
LiveIndex::Position LiveIndex::carve(Position at, Sectors from, Sectors to) {
  if (at.index < branches_[at.leaf].count) {
    Entry& first = entry_at(at);
    if (first.offset() < from) {
      Entry tail = first;
      sectors_of(first) -= first.end() - from;
      first.set_end(from);
      ++at.index;
      if (tail.end() > to) {
        tail.set_begin(to);
        return place(at, tail);
      }
    }
  }
  erase_covered(at, to);
  return at;
}

// Erases what lies before `to`, from `at` on; cuts the entry that crosses `to`. Leaves that become
// empty go, except the one of `at`.
void LiveIndex::erase_covered(Position at, Sectors to) {
  Position next = at;
  while (true) {
    size_t stop = next.index;
    for (; stop < branches_[next.leaf].count; ++stop) {
      const Entry& entry = entry_at({next.leaf, stop});
      if (entry.end() > to) break;
      sectors_of(entry) -= entry.length();
    }
    erase_entries(next, stop - next.index);
    if (next.index < branches_[next.leaf].count) {
      Entry& entry = entry_at(next);
      if (entry.offset() < to) {
        sectors_of(entry) -= to - entry.offset();
        entry.set_begin(to);
        entry_moved_front(next);
      }
      break;
    }
    next = {next.leaf + 1, 0};
    if (next.leaf == branches_.size() || keys_[next.leaf] >= to.count()) break;
  }
  if (next.leaf > at.leaf + 1) remove_leaves(at.leaf + 1, next.leaf);
}

// Puts an entry, whose range is free, at its place: as part of its neighbours if it continues them.
void LiveIndex::join_or_place(Position at, const Entry& entry) {
  Entry* const before = entry_before(at);
  Entry* const after = entry_beginning(at, entry.end());
  if (before != nullptr && before->continues_in(entry)) {
    sectors_of(entry) += entry.length();
    before->set_end(entry.end());
    if (after != nullptr && before->continues_in(*after)) {
      before->set_end(after->end());
      erase_entries(following(at), 1);
    }
  } else if (after != nullptr && entry.continues_in(*after)) {
    sectors_of(entry) += entry.length();
    const Sectors end = after->end();
    *after = entry;
    after->set_end(end);
    entry_moved_front(following(at));
  } else {
    place(at, entry);
  }
}

// Adds an entry at this place or one that is as good; returns where it went.
LiveIndex::Position LiveIndex::place(Position at, const Entry& entry) {
  if (branches_[at.leaf].count == kLeafEntries) at = make_room(at);
  Branch& branch = branches_[at.leaf];
  Entry* const entries = branch.leaf->entries.data();
  std::copy_backward(entries + at.index, entries + branch.count, entries + branch.count + 1);
  entries[at.index] = entry;
  ++branch.count;
  ++extent_count_;
  sectors_of(entry) += entry.length();
  entry_moved_front(at);
  return at;
}

// Given a place in a full leaf, returns one in a leaf with room that is equal in order.
LiveIndex::Position LiveIndex::make_room(Position at) {
  if (at.index == kLeafEntries && at.leaf + 1 < branches_.size() &&
      branches_[at.leaf + 1].count < kLeafEntries) {
    return {at.leaf + 1, 0};
  }
  if (at.index == 0 && at.leaf > 0 && branches_[at.leaf - 1].count < kLeafEntries) {
    return {at.leaf - 1, branches_[at.leaf - 1].count};
  }
  const bool at_edge = at.index == 0 || at.index == kLeafEntries;
  const size_t kept = at_edge ? at.index : kLeafEntries / 2;
  insert_leaf(at.leaf + 1);
  Branch& left = branches_[at.leaf];
  Branch& right = branches_[at.leaf + 1];
  std::copy(left.leaf->entries.begin() + static_cast<ptrdiff_t>(kept), left.leaf->entries.end(),
            right.leaf->entries.begin());
  left.count = kept;
  right.count = kLeafEntries - kept;
  if (right.count > 0) entry_moved_front({at.leaf + 1, 0});
  if (at.index > kept || right.count == 0) return {at.leaf + 1, at.index - kept};
  return at;
}

void LiveIndex::erase_entries(Position at, size_t count) {
  if (count == 0) return;
  Branch& branch = branches_[at.leaf];
  Entry* const entries = branch.leaf->entries.data();
  std::copy(entries + at.index + count, entries + branch.count, entries + at.index);
  branch.count -= count;
  extent_count_ -= count;
  if (branch.count > 0) entry_moved_front(at);
}

// Brings the key of a leaf up to date when its first entry may be another one now.
void LiveIndex::entry_moved_front(Position at) {
  if (at.index == 0) keys_[at.leaf] = entry_at(at).offset().count();
}

// Adds an empty leaf; the first entry placed in it sets its key.
void LiveIndex::insert_leaf(size_t at) {
  std::unique_ptr<Leaf> leaf;
  if (spares_.empty()) {
    leaf = std::make_unique_for_overwrite<Leaf>();
  } else {
    leaf = std::move(spares_.back());
    spares_.pop_back();
  }
  branches_.insert(branches_.begin() + static_cast<ptrdiff_t>(at), Branch{std::move(leaf), 0});
  keys_.insert(keys_.begin() + static_cast<ptrdiff_t>(at), 0);
}

void LiveIndex::remove_leaves(size_t first, size_t last) {
  const size_t remaining = branches_.size() - (last - first);
  for (size_t i = first; i < last; ++i) {
    const size_t spares = spares_.size();
    const bool is_promised = spares < promised_inserts_ && remaining + spares < promised_leaves_;
    if (spares < spares_.capacity() && (is_promised || spares < kKeptSpares)) {
      spares_.push_back(std::move(branches_[i].leaf));
    }
  }
  branches_.erase(branches_.begin() + static_cast<ptrdiff_t>(first),
                  branches_.begin() + static_cast<ptrdiff_t>(last));
  keys_.erase(keys_.begin() + static_cast<ptrdiff_t>(first),
              keys_.begin() + static_cast<ptrdiff_t>(last));
}

// Restores the invariant after an insert at leaf `around` that erased entries. It erased them there
// or in the next leaf, which a split may since have moved one further; each has two sides.
void LiveIndex::merge_small_leaves(size_t around) {
  const size_t first = around > 0 ? around - 1 : 0;
  for (size_t i = std::min(around + 3, branches_.size() - 1); i > first; --i) {
    Branch& left = branches_[i - 1];
    const Branch& right = branches_[i];
    const bool one_is_empty = left.count == 0 || right.count == 0;
    if (!one_is_empty && left.count + right.count > kMergeLimit) continue;
    if (left.count == 0) keys_[i - 1] = keys_[i];
    const Entry* const moved = right.leaf->entries.data();
    std::copy(moved, moved + right.count, left.leaf->entries.data() + left.count);
    left.count += right.count;
    remove_leaves(i, i + 1);
  }
}

size_t LiveIndex::find(Sectors from, Sectors to, std::span<Extent> out) const {
  if (branches_.empty() || from >= to || from >= lsmt::kAddressableEnd) return 0;
  size_t found = 0;
  Position at = first_ending_after(from);
  while (found < out.size()) {
    if (at.index == branches_[at.leaf].count) {
      at = {at.leaf + 1, 0};
      if (at.leaf == branches_.size() || keys_[at.leaf] >= to.count()) break;
    }
    const Entry& entry = entry_at(at);
    if (entry.offset() >= to) break;
    out[found++] = entry.extent().clipped(from, to);
    ++at.index;
  }
  return found;
}

bool LiveIndex::is_all(ExtentKind kind, Sectors from, Sectors to) const {
  std::array<Extent, 16> extents;
  while (from < to) {
    const size_t found = find(from, to, extents);
    if (found == 0) return kind == ExtentKind::hole;
    for (const Extent& extent : std::span(extents).first(found)) {
      if (extent.kind != kind || extent.logical != from) return false;
      from = extent.end();
    }
  }
  return true;
}

size_t LiveIndex::memory_bytes() const {
  return sizeof(*this) + (branches_.size() + spares_.size()) * sizeof(Leaf) +
         keys_.capacity() * sizeof(keys_[0]) + branches_.capacity() * sizeof(branches_[0]) +
         spares_.capacity() * sizeof(spares_[0]);
}

}  // namespace obd
