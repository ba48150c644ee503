#include "core/layer/stale_ranges.h"

#include <algorithm>

namespace obd {
namespace {

SectorRange hull(SectorRange a, SectorRange b) {
  return {std::min(a.from, b.from), std::max(a.to, b.to)};
}

}  // namespace

void StaleRanges::add(SectorRange range, uint64_t changes) {
  const MutexLock lock(mutex_);
  if (!waiting_.empty()) {
    Waiting& last = waiting_.back();
    if (last.range.to == range.from || waiting_.size() >= kMaxRanges) {
      last.range = hull(last.range, range);
      last.changes = changes;
      return;
    }
  }
  waiting_.push_back({range, changes});
}

bool StaleRanges::has_waiting() {
  const MutexLock lock(mutex_);
  return !waiting_.empty();
}

void StaleRanges::became_stable(uint64_t changes) {
  const MutexLock lock(mutex_);
  const auto end = std::find_if(waiting_.begin(), waiting_.end(),
                                [&](const Waiting& w) { return w.changes > changes; });
  for (auto it = waiting_.begin(); it != end; ++it) {
    if (ready_.size() >= kMaxRanges) {
      ready_.back() = hull(ready_.back(), it->range);
    } else {
      ready_.push_back(it->range);
    }
  }
  waiting_.erase(waiting_.begin(), end);
  has_ready_ = !ready_.empty();
}

std::vector<SectorRange> StaleRanges::take_ready(size_t most) {
  const MutexLock lock(mutex_);
  const size_t count = std::min(most, ready_.size());
  std::vector<SectorRange> taken(ready_.end() - static_cast<ptrdiff_t>(count), ready_.end());
  ready_.resize(ready_.size() - count);
  has_ready_ = !ready_.empty();
  return taken;
}

void StaleRanges::put_back(SectorRange range) {
  const MutexLock lock(mutex_);
  ready_.push_back(range);
  has_ready_ = true;
}

}  // namespace obd
