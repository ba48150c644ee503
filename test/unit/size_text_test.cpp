#include "tools/obd/size_text.h"

#include <gtest/gtest.h>

#include "core/base/units.h"

namespace obd::tool {
namespace {

TEST(SizeText, ParsesDigitsAndSuffixes) {
  EXPECT_EQ(parse_size("0"), 0U);
  EXPECT_EQ(parse_size("4096"), 4096U);
  EXPECT_EQ(parse_size("1K"), 1024U);
  EXPECT_EQ(parse_size("512m"), uint64_t{512} << 20);
  EXPECT_EQ(parse_size("10G"), uint64_t{10} << 30);
  EXPECT_EQ(parse_size("10GiB"), uint64_t{10} << 30);
  EXPECT_EQ(parse_size("3T"), uint64_t{3} << 40);
  EXPECT_EQ(parse_size("7p"), uint64_t{7} << 50);
  EXPECT_EQ(parse_size("15E"), uint64_t{15} << 60);
}

TEST(SizeText, ParsesFractionsExactly) {
  EXPECT_EQ(parse_size("1.5G"), uint64_t{3} << 29);
  EXPECT_EQ(parse_size("0.5K"), 512U);
  EXPECT_EQ(parse_size(".25M"), uint64_t{1} << 18);
  EXPECT_EQ(parse_size("1.000000000000000000E"), uint64_t{1} << 60);
  EXPECT_EQ(parse_size("1.5").error().message, "the size 1.5 is not a whole number of bytes");
}

TEST(SizeText, RoundsFractionsUp) {
  EXPECT_EQ(parse_size("0.1G"), 107374183U);  // 107374182.4
  EXPECT_EQ(parse_disk_size("0.1G"), 107374592U);
  EXPECT_EQ(parse_disk_size("1.5K"), 1536U);
}

TEST(SizeText, AcceptsTheLargestAndRefusesOverflow) {
  EXPECT_EQ(parse_size("18446744073709551615"), UINT64_MAX);
  EXPECT_EQ(parse_size("18446744073709551616").error().message,
            "the size 18446744073709551616 does not fit into 64 bits");
  EXPECT_EQ(parse_size("16E").error().message, "the size 16E does not fit into 64 bits");
  EXPECT_FALSE(parse_size("99999999999999999999999999999999999999999999999999"));
  EXPECT_FALSE(parse_size("18446744073709551615K"));
}

TEST(SizeText, RefusesWhatIsNoSize) {
  for (const char* text : {"", "G", ".", ".G", "1.", "1.G", "-1", "+1", " 1", "1 ", "1X", "1KK",
                           "1iB", "0x10", "1e3", "1,5G", "1.0000000000000000000G"}) {
    const auto size = parse_size(text);
    ASSERT_FALSE(size) << text;
    EXPECT_EQ(size.error().code, EINVAL) << text;
    EXPECT_NE(size.error().message.find(fmt::format("'{}' is not a size", text)), std::string::npos)
        << size.error().message;
  }
}

TEST(SizeText, TellsWhatToWriteInsteadOfOtherUnits) {
  for (const char* text : {"5GB", "5gb", "5Gi", "5gib", "5 G", "5 GiB"}) {
    EXPECT_EQ(parse_size(text).error().message,
              fmt::format("'{}' is not a size: write 5G, which counts in powers of 1024", text));
  }
}

TEST(SizeText, DiskSizesAreWholeSectorsWithinTheLimit) {
  EXPECT_EQ(parse_disk_size("512"), 512U);
  EXPECT_EQ(parse_disk_size("9223372036854775296"), kMaxDiskSize);
  EXPECT_EQ(parse_disk_size("0").error().message, "a disk cannot have size 0");
  EXPECT_EQ(parse_disk_size("1000").error().message,
            "the size 1000 is 1000 bytes, and a disk's size is a multiple of 512");
  EXPECT_EQ(parse_disk_size("8E").error().message,
            "the size 8E is above the largest that a disk can have, 9223372036854775296 bytes");
}

TEST(SizeText, PrintsSizesForPeople) {
  EXPECT_EQ(human_size(0), "0 B");
  EXPECT_EQ(human_size(1023), "1023 B");
  EXPECT_EQ(human_size(1024), "1 KiB");
  EXPECT_EQ(human_size(1536), "1.5 KiB");
  EXPECT_EQ(human_size((uint64_t{1} << 20) - 1), "1 MiB");  // not 1024 KiB
  EXPECT_EQ(human_size(uint64_t{10} << 30), "10 GiB");
  EXPECT_EQ(human_size(UINT64_MAX), "16 EiB");
  EXPECT_EQ(exact_size(512), "512 bytes");
  EXPECT_EQ(exact_size(uint64_t{3} << 29), "1.5 GiB (1610612736 bytes)");
}

}  // namespace
}  // namespace obd::tool
