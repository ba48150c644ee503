// The crash tests find what they are there to find: on a host whose syncs do nothing, some disk is
// wrong before long.

#include <gtest/gtest.h>

#include <regex>
#include <stdexcept>

#include "test/crash/crash_explorer.h"
#include "test/crash/sessions.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

constexpr int kMostSessions = 60;
constexpr uint64_t kDisksPerSession = 150;

// Explores sessions on a host that ignores syncs of paths that match this, until something is
// wrong.
bool caught(UpperKind kind, const CrashExplorer::Session& session, const std::string& pattern) {
  for (uint64_t i = 0; i < kMostSessions; ++i) {
    Random random(iteration_seed(i));
    CrashExplorer explorer(random.next(), small_stack(random, kind));
    explorer.record(session, [&](MemoryFileSystem& fs) {
      fs.ignore_syncs(
          [&](const std::string& path) { return std::regex_search(path, std::regex(pattern)); });
    });
    try {
      explorer.explore(kDisksPerSession, short_session);
    } catch (const std::runtime_error&) {
      return true;
    }
  }
  return false;
}

TEST(HarnessBites, DroppingTheDataSyncIsCaught) {
  EXPECT_TRUE(caught(UpperKind::append, long_session, "_data$"));
  EXPECT_TRUE(caught(UpperKind::sparse, long_session, "_data$"));
}

TEST(HarnessBites, DroppingTheLogSyncIsCaught) {
  EXPECT_TRUE(caught(UpperKind::append, long_session, "_index$"));
  EXPECT_TRUE(caught(UpperKind::sparse, long_session, "_index$"));
}

TEST(HarnessBites, DroppingTheSyncOfARewrittenLogIsCaught) {
  EXPECT_TRUE(caught(UpperKind::append, wearing_session, "_index[.]tmp-"));
}

TEST(HarnessBites, DroppingTheSyncOfTheFolderIsCaught) {
  const auto wear_and_go_on = [](ModelledImage& image, Random& random) {
    wearing_session(image, random);
    expect_ok(image.open());
    long_session(image, random);
  };
  EXPECT_TRUE(caught(UpperKind::append, wear_and_go_on, "/image$"));
}

TEST(HarnessBites, NothingIsCaughtWhereNothingIsDropped) {
  EXPECT_FALSE(caught(UpperKind::append, long_session, "no such file"));
}

}  // namespace
}  // namespace obd::test
