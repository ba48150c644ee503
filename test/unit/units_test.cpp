#include "core/base/units.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <type_traits>

namespace obd {
namespace {

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

TEST(Sectors, FloorAndCeilMeetAtWholeSectors) {
  EXPECT_EQ(Sectors::floor(0).count(), 0u);
  EXPECT_EQ(Sectors::ceil(0).count(), 0u);
  EXPECT_EQ(Sectors::floor(511).count(), 0u);
  EXPECT_EQ(Sectors::ceil(1).count(), 1u);
  EXPECT_EQ(Sectors::floor(512).count(), 1u);
  EXPECT_EQ(Sectors::ceil(512).count(), 1u);
  EXPECT_EQ(Sectors::floor(1023).count(), 1u);
  EXPECT_EQ(Sectors::ceil(513).count(), 2u);
}

TEST(Sectors, CeilDoesNotOverflow) {
  EXPECT_EQ(Sectors::ceil(kMax).count(), kMax / 512 + 1);
  EXPECT_EQ(Sectors::ceil(kMaxDiskSize).bytes(), kMaxDiskSize);
}

TEST(Sectors, DoNotConvertToOrFromBytesByThemselves) {
  EXPECT_FALSE((std::is_convertible_v<uint64_t, Sectors>));
  EXPECT_FALSE((std::is_convertible_v<Sectors, uint64_t>));
}

TEST(Sectors, CalculateAndCompare) {
  Sectors value(10);
  value += Sectors(5);
  value -= Sectors(3);
  EXPECT_EQ(value, Sectors(12));
  EXPECT_EQ(value + Sectors(1), Sectors(13));
  EXPECT_EQ(value - Sectors(12), Sectors());
  EXPECT_LT(Sectors(1), Sectors(2));
  EXPECT_EQ(Sectors(8).bytes(), 4096u);
}

TEST(Units, Alignment) {
  EXPECT_TRUE(is_aligned(0, 4096));
  EXPECT_TRUE(is_aligned(8192, 4096));
  EXPECT_FALSE(is_aligned(8191, 4096));
  EXPECT_EQ(align_down(8191, 4096), 4096u);
  EXPECT_EQ(align_up(8191, 4096), 8192u);
  EXPECT_EQ(align_up(8192, 4096), 8192u);
  EXPECT_EQ(align_up(0, 4096), 0u);
}

}  // namespace
}  // namespace obd
