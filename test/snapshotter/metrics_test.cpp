#include "tools/snapshotter/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace obd::snapshotter {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

TEST(CallMetrics, CountEndsAndDurations) {
  CallMetrics calls;
  calls.count("Stat", "OK", 2ms);
  calls.count("Stat", "OK", 2s);
  calls.count("Stat", "NotFound", 100s);
  const std::string text = calls.text();
  EXPECT_THAT(text, HasSubstr("requests_total{method=\"Stat\",code=\"OK\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("requests_total{method=\"Stat\",code=\"NotFound\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("_bucket{method=\"Stat\",le=\"0.001\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("_bucket{method=\"Stat\",le=\"0.005\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("_bucket{method=\"Stat\",le=\"5\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("_bucket{method=\"Stat\",le=\"60\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("_bucket{method=\"Stat\",le=\"+Inf\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("_sum{method=\"Stat\"} 102.00"));
  EXPECT_THAT(text, HasSubstr("_count{method=\"Stat\"} 3\n"));
}

}  // namespace
}  // namespace obd::snapshotter
