// Gives the dead space of an image's upper back while requests are served: the policy, and the
// thread that follows it. What makes each step safe is told in
// core/layer/writable_layer_reclaim.cpp.
//
// The aim for an append layer: what the host holds for it stays below 1.3 times the live data plus
// the slack, whatever is overwritten, and comes down to some 1.03 times of it when writing pauses.
// Dead space is used again first; what is left over is punched, long runs before short ones,
// because a host's cost is by the run; and where too little of it is whole blocks, the live rest is
// moved. Changes wait when they are ahead of that. A sparse layer's zeroed blocks are punched.
//
// Ownership: refers to the layer and the layout lock, owns the thread. Thread-safety: all
// functions, except that start() comes first and stop() last. Errors: what a round could not do is
// tried again later; a layer that takes no more changes reports that itself.

#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "core/base/mutex.h"
#include "core/base/result.h"
#include "core/base/rwlock.h"
#include "core/layer/writable_layer.h"

namespace obd {

struct ReclaimOptions {
  bool on = false;
  uint64_t rate = 0;  // bytes a second that are punched or moved while nobody waits; 0: no limit
  uint64_t slack = uint64_t{64} << 20;  // bytes
  // For tests on small disks.
  size_t region_blocks = AppendSpace::kMostRegionBlocks;
  uint64_t small_log_records = WritableLayer::kFewLogRecords;
};

class SpaceReclaimer {
 public:
  SpaceReclaimer(WritableLayer& layer, SharedMutex& layout, const ReclaimOptions& options)
      : layer_(layer), layout_(layout), options_(options) {}
  ~SpaceReclaimer() { stop(); }

  // Begins to work in the background. After a fork.
  void start();
  // Ends that.
  void stop();
  [[nodiscard]] bool is_running() const { return running_; }

  // To be called before each change, without the layout lock. Waits when the host holds too much.
  void before_change();
  // After a change failed for want of space: true when some may have come back.
  bool make_room();

  // Gives back what can come back now, for about `most` at the longest. The caller does not hold
  // the layout lock.
  Result<void> run_to_the_end(std::chrono::milliseconds most);

  // One round as the background makes it while changes go on: flushes only what it must.
  Result<void> run_once();

  // Nothing is reclaimed while this is held: for whatever moves or cuts data itself. Taken before
  // the layout lock.
  [[nodiscard]] Mutex& round_mutex() OBD_RETURN_CAPABILITY(round_mutex_) { return round_mutex_; }
  // What went before does not count any more: the layer begins a new session.
  void forget() OBD_REQUIRES(round_mutex_) { ripening_ = false; }

 private:
  // pressed: changes wait because the host holds too much. starved: they failed for want of space.
  enum class Mood { busy, idle, pressed, starved };

  void work();
  // Until a whole round has passed.
  void wait_for_round(MutexLock& lock) OBD_REQUIRES(mutex_);
  Result<bool> round(Mood mood);
  Result<bool> round_append(Mood mood) OBD_REQUIRES(round_mutex_);
  Result<bool> round_sparse(Mood mood) OBD_REQUIRES(round_mutex_);
  Result<void> ripen(bool urgent) OBD_REQUIRES(round_mutex_);
  [[nodiscard]] bool holds_too_much() const;
  void keep_to_rate(uint64_t bytes);

  WritableLayer& layer_;
  SharedMutex& layout_;
  const ReclaimOptions options_;

  Mutex round_mutex_ OBD_ACQUIRED_BEFORE(layout_);  // held by a round
  bool ripening_ OBD_GUARDED_BY(round_mutex_) = false;

  Mutex mutex_;
  Condition wake_, round_ended_;
  bool stopping_ OBD_GUARDED_BY(mutex_) = false;
  uint64_t waiting_ OBD_GUARDED_BY(mutex_) = 0;  // threads in wait_for_round()
  uint64_t starved_ OBD_GUARDED_BY(mutex_) = 0;  // of these, those in make_room()
  uint64_t rounds_begun_ OBD_GUARDED_BY(mutex_) = 0;
  uint64_t rounds_ended_ OBD_GUARDED_BY(mutex_) = 0;
  bool made_progress_ OBD_GUARDED_BY(mutex_) = false;  // the last round
  std::atomic<bool> running_ = false;
  std::atomic<bool> quiet_ = false;  // the thread sleeps until there is a change
  std::atomic<uint64_t> changes_ = 0;
  std::thread thread_;
};

}  // namespace obd
