#include "test/support/chooser.h"

#include <algorithm>

#include "core/base/units.h"
#include "core/format/lsmt.h"

namespace obd::test {

void RandomChooser::begin_group(size_t operations) {
  mood_ = static_cast<Mood>(random_.below(6));
  moment_ = random_.below(operations + 1);
  garbage_ = random_.percent(20);
}

void RandomChooser::fill_unwritten(std::span<std::byte> sector) {
  if (garbage_) random_.fill(sector);
}

size_t RandomChooser::reached(std::span<const size_t> touching) {
  switch (mood_) {
    case Mood::nothing:
      return 0;
    case Mood::everything:
      return touching.size();
    case Mood::up_to:
      return static_cast<size_t>(std::count_if(
          touching.begin(), touching.end(), [&](size_t operation) { return operation < moment_; }));
    case Mood::one_by_one:
      return random_.below(touching.size() + 1);
    case Mood::mostly:
      return random_.percent(10) ? random_.below(touching.size() + 1) : touching.size();
    case Mood::hardly:
      return random_.percent(10) ? random_.below(touching.size() + 1) : 0;
  }
  return 0;
}

uint64_t RandomChooser::reached_bytes(uint64_t length) {
  return random_.percent(60) ? length : random_.between(1, length);
}

uint64_t EveryChoice::pick(uint64_t count) {
  if (position_ == choices_.size()) choices_.push_back({0, count});
  return choices_[position_++].value;
}

size_t EveryChoice::reached(std::span<const size_t> touching) { return pick(touching.size() + 1); }

uint64_t EveryChoice::reached_bytes(uint64_t length) {
  // A record of the log tears at every byte; longer writes whole, at a sector, and beside one.
  if (length <= lsmt::kEntrySize) return 1 + pick(length);
  const uint64_t middle = align_up(length / 2, kSectorSize);
  const uint64_t candidates[] = {length, std::min(middle, length), std::min(middle + 3, length)};
  return candidates[pick(3)];
}

bool EveryChoice::next() {
  // Choices after the last used one belonged to another branch.
  choices_.resize(position_);
  position_ = 0;
  while (!choices_.empty() && ++choices_.back().value == choices_.back().count) choices_.pop_back();
  return !choices_.empty();
}

}  // namespace obd::test
