// Short sessions, and every single disk that a power cut in them can leave.

#include <gtest/gtest.h>

#include "test/crash/crash_explorer.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

constexpr uint64_t kMostPerCut = 20000;

void write_sector(ModelledImage& image, Random& random, uint64_t sector) {
  std::vector<std::byte> data(kSectorSize);
  random.fill(data);
  expect_ok(image.write(data, sector * kSectorSize));
}

// First write, flush, overwrite, neighbour, zeroes, over zeroes, close.
void session(ModelledImage& image, Random& random) {
  write_sector(image, random, 0);
  expect_ok(image.flush());
  write_sector(image, random, 0);
  write_sector(image, random, 1);
  expect_ok(image.flush());
  expect_ok(image.trim(0, image.image().size()));
  write_sector(image, random, 0);
  expect_ok(image.flush());
  expect_ok(image.trim(0, image.image().size()));
  expect_ok(image.close());
}

// Overwrites, lets the dead space be used again, and uses it.
void reclaiming_session(ModelledImage& image, Random& random) {
  write_sector(image, random, 0);
  expect_ok(image.flush());
  write_sector(image, random, 0);
  expect_ok(image.reclaim_now());
  write_sector(image, random, 1);
  write_sector(image, random, 0);
  expect_ok(image.reclaim_now());
  write_sector(image, random, 2);
}

void explore(UpperKind kind, const CrashExplorer::Session& session, uint64_t reclaim_percent) {
  for_each_seed(1, [&](uint64_t seed) {
    StackOptions options;
    // Few sectors: the number of disks doubles with each that is written.
    options.size = 3 * kSectorSize;
    options.lowers = 1;
    options.kind = kind;
    CrashExplorer explorer(seed, options);
    explorer.set_reclaim(reclaim_percent);
    explorer.record(session);
    explorer.explore_every(kMostPerCut);
  });
}

TEST(EveryDisk, Append) { explore(UpperKind::append, session, 0); }

TEST(EveryDisk, AppendWithSpaceReclaim) { explore(UpperKind::append, reclaiming_session, 100); }

TEST(EveryDisk, Sparse) { explore(UpperKind::sparse, session, 0); }

}  // namespace
}  // namespace obd::test
