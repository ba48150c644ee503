#include "core/layer/append_space.h"

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

#include "core/format/lsmt.h"

namespace obd {
namespace {

constexpr size_t kBlockSectors = kBlockSize / kSectorSize;
constexpr uint8_t kAllSectors = 0xFF;
static_assert(kBlockSectors == 8);

// Runs that are looked at before a range goes to the end of the file although there is free space.
constexpr int kMostRunsTried = 64;
// Ranges of at least so many bytes go to regions that are wholly free: among the remains of others
// they would seldom find room.
constexpr uint64_t kLargeRange = 256 * 1024;
// Of a region: fewer free blocks are left alone until there are more, so that writes stay together.
constexpr size_t kLeastFreeShare = 8;
// Of the used space: with less to use again, the file grows.
constexpr uint64_t kReusableShare = 16;
// Held runs that one call of survey() looks at.
constexpr int kRunsPerSurvey = 256;

uint64_t block_of(Sectors at) { return at.count() / kBlockSectors; }
Sectors sector_of(uint64_t block) { return Sectors(block * kBlockSectors); }

// The sectors of [from, to), which lie in one block, as bits.
uint8_t sector_mask(Sectors from, Sectors to) {
  return static_cast<uint8_t>(((1U << (to - from).count()) - 1) << (from.count() % kBlockSectors));
}

}  // namespace

struct AppendSpace::Region {
  explicit Region(size_t blocks) {
    in[free].set(0, blocks);
    hole.set(0, blocks);
    counts[free] = holes = static_cast<uint16_t>(blocks);
  }

  std::array<BlockBits, kStates> in;
  BlockBits hole;
  std::array<uint16_t, kStates> counts = {};  // of `in`
  uint16_t holes = 0;                         // of `hole`
  uint16_t free_held = 0;
  uint32_t dead_sectors = 0;  // in used blocks
  bool cleaning = false;
  // Of used blocks: which sectors are dead. Null as long as none is.
  std::unique_ptr<std::array<uint8_t, BlockBits::kBlocks>> dead;

  [[nodiscard]] size_t used(size_t blocks) const {
    return blocks - counts[waiting] - counts[ripening] - counts[free] - counts[taken];
  }
};

AppendSpace::AppendSpace() = default;
AppendSpace::~AppendSpace() = default;

Sectors AppendSpace::begin_of(uint64_t region) const { return sector_of(region * region_blocks_); }

void AppendSpace::reset(Sectors end) {
  const MutexLock lock(mutex_);
  tracking_ = false;
  absent_ = Absent::unusable;
  end_ = end;
  regions_end_ = 0;
  regions_.clear();
  small_ = large_ = Head();
  blocks_ = {};
  holes_ = free_held_ = 0;
  held_bytes_ = 0;
}

AppendSpace::Region& AppendSpace::region_at(uint64_t number) {
  const auto [place, is_new] = regions_.try_emplace(number, region_blocks_);
  if (is_new) {
    blocks_[free] += region_blocks_;
    holes_ += region_blocks_;
  }
  return place->second;
}

void AppendSpace::assign(Region& region, size_t from, size_t to, std::optional<State> state) {
  for (size_t s = 0; s < kStates; ++s) {
    const size_t leaving = region.in[s].count(from, to);
    if (leaving == 0) continue;
    region.in[s].clear(from, to);
    region.counts[s] = static_cast<uint16_t>(region.counts[s] - leaving);
    blocks_[s] -= leaving;
  }
  if (state) {
    region.in[*state].set(from, to);
    region.counts[*state] = static_cast<uint16_t>(region.counts[*state] + (to - from));
    blocks_[*state] += to - from;
  }
  recount_free(region);
}

void AppendSpace::set_holes(Region& region, size_t from, size_t to, bool hole) {
  const size_t before = region.hole.count(from, to);
  const size_t after = hole ? to - from : 0;
  hole ? region.hole.set(from, to) : region.hole.clear(from, to);
  region.holes = static_cast<uint16_t>(region.holes - before + after);
  holes_ = holes_ - before + after;
  held_bytes_ = held_blocks() * kBlockSize;
  recount_free(region);
}

void AppendSpace::recount_free(Region& region) {
  free_held_ -= region.free_held;
  region.free_held = static_cast<uint16_t>(
      region.counts[free] == 0 ? 0
      : region.holes == 0      ? region.counts[free]
                               : region.in[free].without(region.hole).count(0, region_blocks_));
  free_held_ += region.free_held;
}

// Calls visit(region, first block, block after the last) for the parts of a range of blocks.
template <typename Visit>
void AppendSpace::for_each_part(uint64_t from, uint64_t to, Visit&& visit) {
  for (auto region = regions_.lower_bound(from / region_blocks_);
       region != regions_.end() && region->first * region_blocks_ < to; ++region) {
    const uint64_t begin = region->first * region_blocks_;
    visit(region->second, static_cast<size_t>(std::max(from, begin) - begin),
          static_cast<size_t>(std::min(to, begin + region_blocks_) - begin));
  }
}

bool AppendSpace::track(size_t region_blocks, uint64_t held,
                        const std::function<void(const AddLive&)>& list) {
  const MutexLock lock(mutex_);
  region_blocks_ = region_blocks;
  const uint64_t end_block = block_of(end_ + Sectors(kBlockSectors - 1));
  regions_end_ = (end_block + region_blocks_ - 1) / region_blocks_;

  // Each region begins as dead, and its live parts come to life.
  bool overlap = false;
  const auto region_of = [&](uint64_t block) -> Region& {
    mutex_.assert_held();
    const uint64_t number = block / region_blocks_;
    const bool is_new = !regions_.contains(number);
    Region& region = region_at(number);
    if (is_new) {
      const uint64_t begin = number * region_blocks_;
      const auto within = static_cast<size_t>(
          std::min<uint64_t>(region_blocks_, std::max(end_block, begin) - begin));
      assign(region, 0, within, waiting);
      set_holes(region, 0, within, false);
    }
    return region;
  };
  const auto add_live = [&](Sectors from, Sectors to) {
    mutex_.assert_held();
    while (from < to && !overlap) {
      const uint64_t block = block_of(from);
      Region& region = region_of(block);
      const auto in_region = static_cast<size_t>(block % region_blocks_);
      if (from == sector_of(block) && to >= sector_of(block + 1)) {
        const uint64_t count = std::min(block_of(to) - block, region_blocks_ - in_region);
        const auto stop = static_cast<size_t>(in_region + count);
        overlap = region.in[waiting].count(in_region, stop) != count;
        assign(region, in_region, stop, std::nullopt);
        from = sector_of(block + count);
      } else {
        const Sectors stop = std::min(to, sector_of(block + 1));
        overlap = !revive(region, in_region, sector_mask(from, stop));
        from = stop;
      }
    }
  };
  add_live(Sectors(), lsmt::kFirstDataSector);
  list(add_live);
  if (overlap) {
    regions_.clear();
    blocks_ = {};
    holes_ = free_held_ = regions_end_ = 0;
    return false;
  }
  const uint64_t used = used_blocks() * kBlockSize;
  needs_survey_ = held > used + used / 64 + kBlockSize * region_blocks_;
  if (!needs_survey_) {
    for (auto& [number, region] : regions_) {
      for (size_t at = 0;;) {
        at = region.in[waiting].next_set(at, region_blocks_);
        if (at == region_blocks_) break;
        const size_t stop = region.in[waiting].next_clear(at, region_blocks_);
        set_holes(region, at, stop, true);
        at = stop;
      }
    }
  }
  // Where the file ends there may be room before the next region.
  small_.next_region = regions_end_ == 0 ? 0 : regions_end_ - 1;
  small_.next_block = static_cast<size_t>(end_block - small_.next_region * region_blocks_);
  large_.next_region = regions_end_;
  tracking_ = true;
  return true;
}

// Makes sectors of a block live; false when one of them is already.
bool AppendSpace::revive(Region& region, size_t block, uint8_t mask) {
  if (region.in[waiting].test(block)) {
    assign(region, block, block + 1, std::nullopt);
    if (!region.dead) region.dead = std::make_unique<std::array<uint8_t, BlockBits::kBlocks>>();
    (*region.dead)[block] = static_cast<uint8_t>(~mask);
    region.dead_sectors +=
        static_cast<uint32_t>(kBlockSectors - static_cast<uint64_t>(std::popcount(mask)));
    return true;
  }
  if (!region.dead || ((*region.dead)[block] & mask) != mask) return false;
  (*region.dead)[block] &= static_cast<uint8_t>(~mask);
  region.dead_sectors -= static_cast<uint32_t>(std::popcount(mask));
  return true;
}

bool AppendSpace::is_tracking() const {
  const MutexLock lock(mutex_);
  return tracking_;
}

bool AppendSpace::needs_survey() const {
  const MutexLock lock(mutex_);
  return tracking_ && needs_survey_ && absent_ == Absent::usable;
}

uint64_t AppendSpace::used_blocks() const {
  return regions_.size() * region_blocks_ - blocks_[waiting] - blocks_[ripening] - blocks_[free] -
         blocks_[taken];
}

uint64_t AppendSpace::absent_blocks() const {
  return absent_ == Absent::usable ? (regions_end_ - regions_.size()) * region_blocks_ : 0;
}

Result<Sectors> AppendSpace::allocate(Sectors logical, Sectors length, uint64_t most_held,
                                      const std::string& path) {
  // A range that holds whole blocks keeps its alignment.
  const bool holds_block =
      align_up(logical.bytes(), kBlockSize) + kBlockSize <= (logical + length).bytes();
  const uint64_t skew = logical.bytes() % kBlockSize;
  const auto place_from = [&](Sectors from) {
    const uint64_t at = from.bytes();
    if (!holds_block) return at;
    return align_up(at - std::min(at, skew), kBlockSize) + skew;
  };

  const MutexLock lock(mutex_);
  const auto too_large = [&]() -> std::unexpected<Error> {
    return fail(EFBIG, "{}: the data file has grown to its limit; commit or compact the layer",
                path);
  };
  const auto over_budget = [&](uint64_t held) -> std::unexpected<Error> {
    return fail(ENOSPC,
                "{}: {} bytes more would exceed the {} that the writable layer may take "
                "(max-upper-size); it takes {}: delete something and trim, or allow more",
                path, length.bytes(), most_held, held);
  };
  if (!tracking_) {
    const uint64_t at = place_from(end_);
    if (at + length.bytes() > kMaxDiskSize) return too_large();
    if (most_held != 0 && at + length.bytes() > most_held) return over_budget(end_.bytes());
    end_ = Sectors::floor(at) + length;
    return Sectors::floor(at);
  }

  Head& head = length.bytes() >= kLargeRange ? large_ : small_;
  const auto fits = [&] {
    return head.at < head.end && place_from(head.at) + length.bytes() <= head.end.bytes();
  };
  for (int tries = 0; !fits(); ++tries) {
    if (tries == kMostRunsTried || !next_run(head, &head == &large_)) {
      retire(head);
      if (begin_of(regions_end_).bytes() + length.bytes() > kMaxDiskSize - 2 * kBlockSize) {
        return too_large();
      }
      grow(head, length);
    }
  }
  const Sectors at = Sectors::floor(place_from(head.at));
  const uint64_t first = block_of(at), last = block_of(at + length - Sectors(1)) + 1;
  uint64_t holes = 0;
  for_each_part(first, last, [&](Region& region, size_t from, size_t to) {
    holes += region.hole.count(from, to);
  });
  const uint64_t held = held_blocks() * kBlockSize;
  if (most_held != 0 && held + holes * kBlockSize > most_held) return over_budget(held);
  if (holes != 0) {
    for_each_part(first, last, [&](Region& region, size_t from, size_t to) {
      mutex_.assert_held();
      set_holes(region, from, to, false);
    });
  }
  // What the alignment skips was never named.
  if (head.at < at) kill_locked(head.at, at);
  head.at = at + length;
  end_ = std::max(end_, head.at);
  return at;
}

uint64_t AppendSpace::held_blocks() const { return regions_.size() * region_blocks_ - holes_; }

// Gives what is left of a head back.
void AppendSpace::retire(Head& head) {
  if (head.at < head.end) {
    const uint64_t whole = block_of(head.at + Sectors(kBlockSectors - 1));
    if (head.at < sector_of(whole)) kill_locked(head.at, std::min(sector_of(whole), head.end));
    for_each_part(whole, block_of(head.end), [&](Region& region, size_t from, size_t to) {
      mutex_.assert_held();
      assign(region, from, to, free);
    });
  }
  head.at = head.end = Sectors();
}

bool AppendSpace::worth_reusing() const {
  const uint64_t reusable = blocks_[free] + absent_blocks();
  return reusable > used_blocks() / kReusableShare + region_blocks_;
}

// Moves a head to the next free run; false when the file had better grow.
bool AppendSpace::next_run(Head& head, bool whole_regions) {
  retire(head);
  for (bool wrapped = false;;) {
    if (head.next_region >= regions_end_) {
      if (wrapped || !worth_reusing()) return false;
      wrapped = true;
      head.next_region = 0;
      head.next_block = 0;
    }
    if (absent_ != Absent::usable) {
      const auto there = regions_.lower_bound(head.next_region);
      const uint64_t number = there == regions_.end() ? regions_end_ : there->first;
      if (number != head.next_region) {
        head.next_region = number;
        head.next_block = 0;
        continue;
      }
    }
    const uint64_t number = head.next_region;
    Region& region = region_at(number);
    const bool begins = head.next_block == 0;
    const size_t least = whole_regions ? region_blocks_
                         : begins      ? std::max<size_t>(1, region_blocks_ / kLeastFreeShare)
                                       : 1;
    const size_t from = region.cleaning || region.counts[free] < least
                            ? region_blocks_
                            : region.in[free].next_set(head.next_block, region_blocks_);
    if (from < region_blocks_) {
      const size_t to = region.in[free].next_clear(from, region_blocks_);
      assign(region, from, to, std::nullopt);
      clear_dead(region, from, to);
      head.at = begin_of(number) + sector_of(from);
      head.end = begin_of(number) + sector_of(to);
      head.next_block = to;
      return true;
    }
    ++head.next_region;
    head.next_block = 0;
  }
}

void AppendSpace::clear_dead(Region& region, size_t from, size_t to) {
  if (region.dead) std::fill(region.dead->begin() + from, region.dead->begin() + to, uint8_t{0});
}

// Moves a head to new regions at the end of the file.
void AppendSpace::grow(Head& head, Sectors length) {
  const uint64_t blocks = block_of(length) + 2;
  const uint64_t regions = (blocks + region_blocks_ - 1) / region_blocks_;
  const uint64_t first = regions_end_;
  for (uint64_t number = first; number < first + regions; ++number) {
    assign(region_at(number), 0, region_blocks_, std::nullopt);
    regions_end_ = number + 1;
  }
  head.at = begin_of(first);
  head.end = begin_of(regions_end_);
  head.next_region = regions_end_;
  head.next_block = 0;
}

void AppendSpace::give_back(Sectors from, Sectors length,
                            const std::function<bool(Sectors end)>& cut) {
  const MutexLock lock(mutex_);
  const Sectors to = from + length;
  const bool is_last = to == end_;
  if (!tracking_) {
    if (is_last && cut(from)) end_ = from;
    return;
  }
  if (is_last && cut(from)) {
    for_each_part(block_of(from + Sectors(kBlockSectors - 1)),
                  block_of(to + Sectors(kBlockSectors - 1)),
                  [&](Region& region, size_t begin, size_t end) {
                    mutex_.assert_held();
                    set_holes(region, begin, end, true);
                  });
    for (Head* head : {&small_, &large_}) {
      if (head->at != to || head->end <= to) continue;
      head->at = end_ = from;
      return;
    }
  }
  kill_locked(from, to);
}

void AppendSpace::kill(Sectors from, Sectors length) noexcept {
  const MutexLock lock(mutex_);
  if (tracking_) kill_locked(from, from + length);
}

void AppendSpace::kill_locked(Sectors from, Sectors to) noexcept {
  while (from < to) {
    const uint64_t block = block_of(from);
    const auto place = regions_.find(block / region_blocks_);
    const auto in_region = static_cast<size_t>(block % region_blocks_);
    if (from == sector_of(block) && to >= sector_of(block + 1)) {
      const uint64_t region_end = (block / region_blocks_ + 1) * region_blocks_;
      const uint64_t stop = std::min(block_of(to), region_end);
      if (place != regions_.end()) {
        Region& region = place->second;
        const auto end_in_region = static_cast<size_t>(in_region + (stop - block));
        if (!region.dead) {
          assign(region, in_region, end_in_region, waiting);
        } else {
          for (size_t i = in_region; i < end_in_region; ++i) kill_sectors(region, i, kAllSectors);
        }
      }
      from = sector_of(stop);
      continue;
    }
    const Sectors stop = std::min(to, sector_of(block + 1));
    if (place != regions_.end()) {
      kill_sectors(place->second, in_region, sector_mask(from, stop));
    }
    from = stop;
  }
}

void AppendSpace::kill_sectors(Region& region, size_t block, uint8_t mask) noexcept {
  if (!region.dead && mask != kAllSectors) {
    region.dead.reset(new (std::nothrow) std::array<uint8_t, BlockBits::kBlocks>());
    if (!region.dead) return;  // stays used until the next session looks
  }
  if (region.dead) {
    uint8_t& dead = (*region.dead)[block];
    region.dead_sectors += static_cast<uint32_t>(std::popcount(static_cast<uint8_t>(mask & ~dead)));
    dead |= mask;
    if (dead != kAllSectors) return;
    region.dead_sectors -= static_cast<uint32_t>(kBlockSectors);
    dead = 0;
  }
  assign(region, block, block + 1, waiting);
}

Sectors AppendSpace::end() const {
  const MutexLock lock(mutex_);
  return end_;
}

AppendSpace::Usage AppendSpace::usage() const {
  const MutexLock lock(mutex_);
  Usage usage;
  usage.held = tracking_ ? held_blocks() * kBlockSize : end_.bytes();
  // What the heads have set aside is not in use yet.
  const uint64_t ahead = (small_.end - small_.at).bytes() + (large_.end - large_.at).bytes();
  usage.used = used_blocks() * kBlockSize - align_down(ahead, kBlockSize);
  usage.free = free_held_ * kBlockSize;
  usage.dying = (blocks_[waiting] + blocks_[ripening]) * kBlockSize;
  return usage;
}

bool AppendSpace::begin_ripening() {
  const MutexLock lock(mutex_);
  if (!tracking_) return false;
  if (absent_ == Absent::unusable) absent_ = Absent::ripening;
  for (auto& [number, region] : regions_) replace(region, waiting, ripening);
  return blocks_[ripening] != 0 || absent_ == Absent::ripening;
}

void AppendSpace::end_ripening() {
  const MutexLock lock(mutex_);
  if (absent_ == Absent::ripening) absent_ = Absent::usable;
  for (auto& [number, region] : regions_) replace(region, ripening, free);
  forget_empty_regions();
}

// Everything that is in one state is in another afterwards.
void AppendSpace::replace(Region& region, State from, State to) {
  if (region.counts[from] == 0) return;
  for (size_t at = 0;;) {
    at = region.in[from].next_set(at, region_blocks_);
    if (at == region_blocks_) return;
    const size_t stop = region.in[from].next_clear(at, region_blocks_);
    assign(region, at, stop, to);
    at = stop;
  }
}

void AppendSpace::forget_empty_regions() {
  if (absent_ != Absent::usable) return;
  std::erase_if(regions_, [&](const auto& item) {
    mutex_.assert_held();
    const Region& region = item.second;
    const bool is_empty = region.counts[free] == region_blocks_ && region.holes == region_blocks_;
    if (!is_empty || region.cleaning) return false;
    blocks_[free] -= region_blocks_;
    holes_ -= region_blocks_;
    return true;
  });
}

std::vector<SectorRange> AppendSpace::take_for_punching(uint64_t unit, uint64_t shortest,
                                                        uint64_t most_bytes, size_t most_ranges) {
  const MutexLock lock(mutex_);
  std::vector<std::pair<size_t, uint64_t>> candidates;  // free and held blocks, region
  for (const auto& [number, region] : regions_) {
    if (region.free_held * kBlockSize >= std::max(shortest, unit)) {
      candidates.emplace_back(region.free_held, number);
    }
  }
  std::ranges::sort(candidates, std::greater());

  std::vector<SectorRange> ranges;
  uint64_t bytes = 0;
  for (const auto& [count, number] : candidates) {
    Region& region = regions_.at(number);
    const uint64_t begin = begin_of(number).bytes();
    const BlockBits held = region.in[free].without(region.hole);
    for (size_t at = 0;;) {
      at = held.next_set(at, region_blocks_);
      if (at == region_blocks_) break;
      const size_t stop = held.next_clear(at, region_blocks_);
      const uint64_t from = align_up(begin + at * kBlockSize, unit);
      uint64_t to = align_down(begin + stop * kBlockSize, unit);
      at = stop;
      if (from + std::max(shortest, unit) > to) continue;
      if (bytes >= most_bytes || ranges.size() >= most_ranges) return ranges;
      to = std::min(to, align_up(from + (most_bytes - bytes), unit));
      assign(region, static_cast<size_t>((from - begin) / kBlockSize),
             static_cast<size_t>((to - begin) / kBlockSize), taken);
      ranges.push_back({Sectors::floor(from), Sectors::floor(to)});
      bytes += to - from;
    }
  }
  return ranges;
}

void AppendSpace::punched(const SectorRange& range, bool is_hole) {
  const MutexLock lock(mutex_);
  for_each_part(block_of(range.from), block_of(range.to),
                [&](Region& region, size_t from, size_t to) {
                  mutex_.assert_held();
                  assign(region, from, to, free);
                  if (is_hole) set_holes(region, from, to, true);
                });
}

bool AppendSpace::is_head_in(uint64_t number) const {
  const Sectors begin = begin_of(number), end = begin_of(number + 1);
  return std::ranges::any_of(std::array{&small_, &large_}, [&](const Head* head) {
    return head->at < head->end && head->at < end && head->end > begin;
  });
}

std::vector<SectorRange> AppendSpace::take_for_cleaning(uint64_t most_live) {
  const MutexLock lock(mutex_);
  struct Candidate {
    double cost;  // live sectors for each that comes free
    uint64_t number;
    uint64_t live;  // bytes
  };
  std::vector<Candidate> candidates;
  for (const auto& [number, region] : regions_) {
    const size_t used = region.used(region_blocks_);
    if (used == 0 || region.cleaning || is_head_in(number)) continue;
    const uint64_t live = used * kBlockSectors - region.dead_sectors;
    const uint64_t gain = region.dead_sectors + region.free_held * kBlockSectors;
    // Moving more than what comes free would go in circles.
    if (gain < live / 2 + kBlockSectors) continue;
    candidates.push_back(
        {static_cast<double>(live) / static_cast<double>(gain), number, live * kSectorSize});
  }
  std::ranges::sort(candidates, {}, &Candidate::cost);
  std::vector<SectorRange> regions;
  uint64_t live = 0;
  for (const Candidate& candidate : candidates) {
    if (!regions.empty() && live + candidate.live > most_live) break;
    live += candidate.live;
    regions_.at(candidate.number).cleaning = true;
    regions.push_back({begin_of(candidate.number), begin_of(candidate.number + 1)});
  }
  std::ranges::sort(regions, {}, &SectorRange::from);
  return regions;
}

void AppendSpace::release_cleaned(const std::vector<SectorRange>& regions) {
  const MutexLock lock(mutex_);
  for (const SectorRange& range : regions) {
    const auto region = regions_.find(block_of(range.from) / region_blocks_);
    if (region != regions_.end()) region->second.cleaning = false;
  }
}

Result<std::optional<Sectors>> AppendSpace::survey(Sectors from, const NextHeld& next_held) {
  for (int i = 0; i < kRunsPerSurvey; ++i) {
    OBD_TRY_ASSIGN(const auto run, next_held(from));
    const MutexLock lock(mutex_);
    const uint64_t file_end = regions_end_ * region_blocks_;
    const uint64_t gap_begin = block_of(from);
    const uint64_t gap_end = run ? std::min(block_of(run->from), file_end) : file_end;
    // A block that is free now was so when the host was asked: only a ripening makes it so.
    const auto set_free_blocks = [&](uint64_t first, uint64_t last, bool hole) {
      mutex_.assert_held();
      for_each_part(first, last, [&](Region& region, size_t begin, size_t end) {
        mutex_.assert_held();
        for (size_t block = begin; block < end; ++block) {
          if (region.in[free].test(block)) set_holes(region, block, block + 1, hole);
        }
      });
    };
    set_free_blocks(gap_begin, gap_end, true);
    if (!run || gap_end == file_end) {
      needs_survey_ = false;
      forget_empty_regions();
      return std::nullopt;
    }
    const uint64_t held_end = std::min(block_of(run->to + Sectors(kBlockSectors - 1)), file_end);
    for (uint64_t block = gap_end; block < held_end; block += region_blocks_) {
      (void)region_at(block / region_blocks_);
    }
    if (gap_end < held_end) (void)region_at((held_end - 1) / region_blocks_);
    set_free_blocks(gap_end, held_end, false);
    from = sector_of(held_end);
  }
  return from;
}

}  // namespace obd
