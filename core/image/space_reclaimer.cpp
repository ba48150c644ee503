#include "core/image/space_reclaimer.h"

#include <algorithm>
#include <array>

#include "core/base/units.h"

namespace obd {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kTick{100};
// So long without a change, writing pauses.
constexpr int kIdleTicks = 10;
// Of one step, so that changes that wait do not wait long.
constexpr uint64_t kBytesPerStep = uint64_t{16} << 20;
// A punch costs as much as writing some dozen blocks: while writing goes on, shorter runs had
// better be used again.
constexpr uint64_t kLongRun = uint64_t{256} << 10;

}  // namespace

void SpaceReclaimer::start() {
  if (!options_.on || running_) return;
  running_ = true;
  thread_ = std::thread([this] { work(); });
}

void SpaceReclaimer::stop() {
  if (!thread_.joinable()) return;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
  running_ = false;
  round_ended_.notify_all();
}

bool SpaceReclaimer::holds_too_much() const {
  const uint64_t live = layer_.live_bytes();
  return layer_.held_bytes() > live + live / 4 + options_.slack / 4 * 3;
}

void SpaceReclaimer::before_change() {
  if (!running_) return;
  changes_.fetch_add(1);
  if (quiet_ && quiet_.exchange(false)) {
    const MutexLock lock(mutex_);
    wake_.notify_one();
  }
  if (layer_.kind() != UpperKind::append || !holds_too_much()) return;
  MutexLock lock(mutex_);
  do {
    wait_for_round(lock);
  } while (!stopping_ && made_progress_ && holds_too_much());
}

void SpaceReclaimer::wait_for_round(MutexLock& lock) {
  const uint64_t wanted = rounds_begun_ + 1;
  ++waiting_;
  quiet_ = false;
  wake_.notify_one();
  round_ended_.wait(lock, [&] {
    mutex_.assert_held();
    return rounds_ended_ >= wanted || stopping_;
  });
  --waiting_;
}

bool SpaceReclaimer::make_room() {
  if (!running_) return false;
  const bool any_dead = layer_.usage().dying > 0 || layer_.has_unstable_stale_space();
  MutexLock lock(mutex_);
  ++starved_;
  wait_for_round(lock);
  --starved_;
  return !stopping_ && (any_dead || made_progress_);
}

void SpaceReclaimer::work() {
  uint64_t seen = changes_;
  int ticks_without_change = 0;
  bool more = true;
  MutexLock lock(mutex_);
  while (!stopping_) {
    const auto is_wanted = [&] {
      mutex_.assert_held();
      return stopping_ || waiting_ > 0;
    };
    if (quiet_) {
      wake_.wait(lock, [&] { return is_wanted() || !quiet_; });
    } else if (!more && waiting_ == 0) {
      wake_.wait_for(lock, kTick, is_wanted);
    }
    if (stopping_) break;
    const uint64_t now = changes_;
    ticks_without_change = now == seen ? std::min(ticks_without_change + 1, kIdleTicks) : 0;
    seen = now;
    const bool is_idle = ticks_without_change >= kIdleTicks;
    const Mood mood = starved_ > 0   ? Mood::starved
                      : waiting_ > 0 ? Mood::pressed
                      : is_idle      ? Mood::idle
                                     : Mood::busy;
    const uint64_t number = ++rounds_begun_;
    lock.unlock();
    bool failed = false;
    more = false;
    try {
      const auto done = round(mood);
      failed = !done;
      more = done && *done;
    } catch (const std::bad_alloc&) {
      failed = true;
    }
    lock.lock();
    rounds_ended_ = number;
    made_progress_ = more;
    round_ended_.notify_all();
    if (mood == Mood::idle && !more && changes_ == seen) {
      quiet_ = true;
      // A change that came between was not heard.
      if (changes_ != seen) quiet_ = false;
    }
    // So that a host that refuses something is not asked all the time.
    if (failed && !stopping_) {
      wake_.wait_for(lock, kTick, [&] {
        mutex_.assert_held();
        return stopping_;
      });
    }
  }
}

// What was done at full speed is made up for by a pause, unless somebody waits.
void SpaceReclaimer::keep_to_rate(uint64_t bytes) {
  if (options_.rate == 0 || bytes == 0 || !running_) return;
  const std::chrono::duration<double> pause(static_cast<double>(bytes) /
                                            static_cast<double>(options_.rate));
  MutexLock lock(mutex_);
  wake_.wait_for(lock, pause, [&] {
    mutex_.assert_held();
    return stopping_ || waiting_ > 0;
  });
}

Result<void> SpaceReclaimer::run_to_the_end(milliseconds most) {
  const auto stop = std::chrono::steady_clock::now() + most;
  do {
    OBD_TRY_ASSIGN(const bool more, round(Mood::idle));
    if (!more) return {};
  } while (std::chrono::steady_clock::now() < stop);
  return {};
}

Result<void> SpaceReclaimer::run_once() {
  OBD_TRY(round(Mood::busy));
  return {};
}

// True when there is more to do at once.
Result<bool> SpaceReclaimer::round(Mood mood) {
  uint64_t before = 0;
  Result<bool> more = false;
  {
    const MutexLock lock(round_mutex_);
    OBD_TRY_ASSIGN(const bool may, layer_.may_reclaim());
    if (!may) return false;
    before = layer_.reclaimed_bytes();
    more = layer_.kind() == UpperKind::append ? round_append(mood) : round_sparse(mood);
    // A log is worth little beside the data, so it comes last.
    if (more) OBD_TRY(layer_.checkpoint_log(options_.small_log_records));
  }
  keep_to_rate(layer_.reclaimed_bytes() - before);
  return more;
}

Result<bool> SpaceReclaimer::round_sparse(Mood mood) {
  if (mood != Mood::busy && layer_.has_unstable_stale_space()) OBD_TRY(layer_.flush());
  if (layer_.has_stale_space()) {
    const WriterLock layout(layout_);
    layer_.release_stale_space();
  }
  return layer_.has_stale_space();
}

Result<void> SpaceReclaimer::ripen(bool urgent) {
  if (!ripening_) ripening_ = layer_.begin_ripening();
  if (!ripening_) return {};
  if (urgent && !layer_.dead_is_stable()) OBD_TRY(layer_.flush());
  if (!layer_.dead_is_stable()) return {};
  // Whoever holds the layout lock shared may have looked up a block that has died since. Once it
  // has been held exclusively they are gone, and newcomers see the index as it is.
  {
    const WriterLock layout(layout_);
  }
  layer_.end_ripening();
  ripening_ = false;
  return {};
}

Result<bool> SpaceReclaimer::round_append(Mood mood) {
  const uint64_t live = layer_.live_bytes();
  const uint64_t slack = options_.slack;
  AppendSpace::Usage usage = layer_.usage();
  OBD_TRY(ripen(mood != Mood::busy || usage.dying > live / 16 + slack / 8));
  OBD_TRY_ASSIGN(const bool surveyed, layer_.survey());

  usage = layer_.usage();
  const bool excess = usage.held > live + live / 5 + slack / 2;
  const uint64_t scattered = usage.used - std::min(usage.used, live);
  const uint64_t scattered_at_most = mood == Mood::idle ? live / 32 : live / 8 + slack / 8;
  // What is free can be used again, but only by a change that fits into it.
  const uint64_t keep = mood == Mood::starved ? 0
                        : mood == Mood::idle  ? live / 32 - std::min(live / 32, scattered)
                                              : live / 8 + slack / 8;
  const bool any_run = mood == Mood::idle || mood == Mood::starved;
  uint64_t punched = 0;
  if (usage.free > keep) {
    const uint64_t most = std::min(usage.free - keep, kBytesPerStep);
    OBD_TRY_ASSIGN(punched, layer_.punch(any_run ? kBlockSize : kLongRun, most));
  }
  uint64_t moved = 0;
  if (scattered > scattered_at_most || (excess && usage.free > keep && punched == 0)) {
    // Looking for what is live goes through the whole index, so a large one moves more at once.
    OBD_TRY_ASSIGN(moved, layer_.clean(kBytesPerStep / 2 + layer_.index_extents() * 4));
    if (moved == 0 && excess && punched == 0 && usage.free > keep) {
      OBD_TRY_ASSIGN(punched, layer_.punch(kBlockSize, kBytesPerStep));
    }
  }
  if (mood == Mood::busy && !excess) return !surveyed;
  // What was moved leaves dead space behind, which ripens in the next round.
  return !surveyed || moved > 0 || punched > 0 || (mood == Mood::idle && layer_.usage().dying > 0);
}

}  // namespace obd
