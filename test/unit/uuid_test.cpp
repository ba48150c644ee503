#include "core/base/uuid.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>
#include <string>

namespace obd {
namespace {

TEST(Uuid, TextIsUpperCaseAndParsesBack) {
  const auto uuid = Uuid::parse("78c46bba-0c71-4395-aa6e-faeeb32906c9");
  ASSERT_TRUE(uuid);
  EXPECT_EQ(uuid->text(), "78C46BBA-0C71-4395-AA6E-FAEEB32906C9");
  EXPECT_EQ(uuid->bytes()[0], 0x78);
  EXPECT_EQ(uuid->bytes()[15], 0xC9);
  EXPECT_EQ(Uuid::parse(uuid->text()).value(), *uuid);
}

TEST(Uuid, NilIsAllZeros) {
  EXPECT_TRUE(Uuid().is_nil());
  EXPECT_EQ(Uuid().text(), "00000000-0000-0000-0000-000000000000");
  EXPECT_FALSE(Uuid::parse("00000000-0000-0000-0000-000000000001").value().is_nil());
}

TEST(Uuid, MalformedTextIsRefused) {
  const std::string good = "78C46BBA-0C71-4395-AA6E-FAEEB32906C9";
  ASSERT_TRUE(Uuid::parse(good));
  for (const std::string& bad : {
           std::string(),
           good.substr(1),
           good + "0",
           good + std::string(1, '\0'),
           "{" + good + "}",
           std::string("78C46BBA0C714395AA6EFAEEB32906C9"),
           std::string("78C46BBA-0C71-4395-AA6EF-AEEB32906C9"),
           std::string("G8C46BBA-0C71-4395-AA6E-FAEEB32906C9"),
           std::string("+8C46BBA-0C71-4395-AA6E-FAEEB32906C9"),
       }) {
    const auto uuid = Uuid::parse(bad);
    ASSERT_FALSE(uuid) << bad;
    EXPECT_EQ(uuid.error().code, EINVAL);
    EXPECT_NE(uuid.error().message.find(bad), std::string::npos);
  }
  // Each single position must be what it is.
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = good[i] == '-' ? '0' : '-';
    EXPECT_FALSE(Uuid::parse(bad)) << bad;
  }
}

TEST(Uuid, RandomOnesDifferAndSayVersionFour) {
  std::set<std::string> seen;
  for (int i = 0; i < 100; ++i) {
    const std::string text = Uuid::random().text();
    EXPECT_EQ(text[14], '4') << text;
    EXPECT_NE(std::string("89AB").find(text[19]), std::string::npos) << text;
    EXPECT_TRUE(seen.insert(text).second) << text;
  }
}

}  // namespace
}  // namespace obd
