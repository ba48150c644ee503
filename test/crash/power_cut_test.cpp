// Crashes anywhere in recorded sessions, of both kinds of upper: every sector holds what rules 2
// and 3 allow, no disk is refused, and all can be written to again.

#include <gtest/gtest.h>

#include "test/crash/crash_explorer.h"
#include "test/crash/sessions.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

constexpr uint64_t kDisksPerSession = 150;

void explore_sessions(uint64_t percent, UpperKind kind, UpperOrigin origin,
                      const CrashExplorer::Session& session) {
  uint64_t seen = 0;
  for_each_seed_until([&](uint64_t seed) {
    Random random(seed);
    CrashExplorer explorer(random.next(), small_stack(random, kind), origin);
    explorer.record(session, [&](MemoryFileSystem& fs) { fs.disturb(random.next()); });
    explorer.explore(kDisksPerSession, short_session);
    seen += explorer.disks_seen();
    return seen >= crash_disks(percent);
  });
}

// Crashes near the end of the session only.
void explore_ends(uint64_t percent, UpperKind kind, const CrashExplorer::Session& session,
                  size_t last_entries) {
  uint64_t seen = 0;
  for_each_seed_until([&](uint64_t seed) {
    Random random(seed);
    CrashExplorer explorer(random.next(), small_stack(random, kind));
    explorer.record(session);
    explorer.explore(kDisksPerSession, short_session, explorer.trace_size() - last_entries);
    seen += explorer.disks_seen();
    return seen >= crash_disks(percent);
  });
}

TEST(Crash, Append) { explore_sessions(15, UpperKind::append, UpperOrigin::fresh, long_session); }

TEST(Crash, AppendWithSpaceReclaim) {
  explore_sessions(30, UpperKind::append, UpperOrigin::fresh, reclaiming_session);
}

TEST(Crash, AppendWithSpaceReclaimFromThreads) {
  explore_sessions(10, UpperKind::append, UpperOrigin::fresh, reclaiming_threads_session);
}

TEST(Crash, SparseWithSpaceReclaim) {
  explore_sessions(10, UpperKind::sparse, UpperOrigin::fresh, reclaiming_session);
}

TEST(Crash, SpaceReclaimInAnAppendPairOfOverlaybd) {
  explore_sessions(5, UpperKind::append, UpperOrigin::upstream, reclaiming_session);
}

TEST(Crash, Sparse) { explore_sessions(15, UpperKind::sparse, UpperOrigin::fresh, long_session); }

TEST(Crash, AppendFromThreads) {
  explore_sessions(10, UpperKind::append, UpperOrigin::fresh, threads_session);
}

TEST(Crash, SparseFromThreads) {
  explore_sessions(10, UpperKind::sparse, UpperOrigin::fresh, threads_session);
}

TEST(Crash, AdoptingAnAppendPairOfOverlaybd) {
  explore_sessions(7, UpperKind::append, UpperOrigin::upstream, short_session);
}

TEST(Crash, AdoptingWhatOverlaybdAppendedToOurs) {
  explore_sessions(7, UpperKind::append, UpperOrigin::continued_by_upstream, short_session);
}

TEST(Crash, AdoptingASparsePairOfOverlaybd) {
  explore_sessions(7, UpperKind::sparse, UpperOrigin::upstream, short_session);
}

TEST(Crash, RewritingTheLogOfAnAppendLayer) {
  explore_ends(5, UpperKind::append, wearing_session, 40);
}

TEST(Crash, RewritingTheLogOfASparseLayer) {
  explore_ends(5, UpperKind::sparse, wearing_session, 40);
}

TEST(Crash, ManyRecordsBetweenFlushesOfAnAppendLayer) {
  explore_ends(5, UpperKind::append, crowded_session, 10);
}

TEST(Crash, ManyRecordsBetweenFlushesOfASparseLayer) {
  explore_ends(5, UpperKind::sparse, crowded_session, 10);
}

}  // namespace
}  // namespace obd::test
