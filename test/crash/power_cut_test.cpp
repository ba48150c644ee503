// Crashes anywhere in recorded sessions, of both kinds of upper: every sector holds what rules 2
// and 3 allow, no disk is refused, and all can be written to again.

#include <gtest/gtest.h>

#include "core/io/file.h"
#include "test/crash/crash_explorer.h"
#include "test/crash/sessions.h"
#include "test/support/chooser.h"
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

// Files that were copied a moment ago read well, and nothing of them need be on the device.
void flush_a_copy_and_cut_power(uint64_t seed, UpperKind kind) {
  Random random(seed);
  MemoryFileSystem fs("first-boot");
  Stack stack = build_stack(fs, random, small_stack(random, kind));
  DiskModel model(stack.content);
  ModelledImage image(fs, stack.config, model);
  expect_ok(image.open());
  for (int i = 0; i < 12; ++i) random_operation(image, random);
  expect_ok(image.close());
  const std::vector<std::byte> content = model.newest();

  const DiskState start = fs.state();
  fs.start_recording();
  for (const std::string& path : {stack.config.upper->data, stack.config.upper->index}) {
    const std::string bytes = expect_value(read_whole(fs, path, uint64_t{1} << 30));
    expect_ok(fs.remove(path));
    const auto copy = expect_value(fs.create(path, 0600));
    expect_ok(copy->write_at(std::as_bytes(std::span(bytes)), 0));
  }
  // With or without a change before it.
  expect_ok(image.open());
  const bool changes = random.percent(50);
  if (changes) expect_ok(image.write(std::span(content).first(kSectorSize), 0));
  expect_ok(image.flush());
  const size_t flushed = fs.mark("flushed");
  image.drop();
  const Trace trace = fs.take_trace();
  for (int i = 0; i < 10; ++i) {
    CrashDisk disk(start, trace, random.next());
    disk.advance_to(flushed);
    RandomChooser chooser(random.next());
    MemoryFileSystem host(disk.power_cut(chooser), "second-boot");
    const auto found = expect_value(Image::open(host, stack.config, {}));
    std::vector<std::byte> bytes(found->size());
    expect_ok(found->read(bytes, 0));
    require(bytes == content, "a flushed copy lost data");
  }
}

TEST(Crash, AFlushSettlesFilesThatWereJustCopied) {
  for_each_seed(40, [](uint64_t seed) {
    flush_a_copy_and_cut_power(seed, seed % 2 == 0 ? UpperKind::append : UpperKind::sparse);
  });
}

}  // namespace
}  // namespace obd::test
