#include "tools/snapshotter/filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <map>

namespace obd::snapshotter {
namespace {

using testing::HasSubstr;

std::optional<std::string> look_up(const std::vector<std::string>& path) {
  static const std::map<std::string, std::string> kFields = {
      {"name", "default/3/web"},
      {"kind", "active"},
      {"parent", ""},
      {"labels.containerd.io/gc.root", "yes"},
      {"labels.empty.name", "x.y,z"},
  };
  std::string name;
  for (const std::string& word : path) name += (name.empty() ? "" : ".") + word;
  const auto found = kFields.find(name);
  if (found == kFields.end()) return std::nullopt;
  return found->second;
}

bool matches(const std::vector<std::string>& texts) {
  const auto filter = Filter::parse(texts);
  EXPECT_TRUE(filter) << filter.error().message;
  return filter && filter->matches(look_up);
}

TEST(Filter, WithoutAnyEverythingMatches) {
  EXPECT_TRUE(matches({}));
  EXPECT_TRUE(matches({""}));
}

TEST(Filter, Compares) {
  EXPECT_TRUE(matches({"kind==active"}));
  EXPECT_FALSE(matches({"kind==view"}));
  EXPECT_TRUE(matches({"kind!=view"}));
  EXPECT_TRUE(matches({"name==default/3/web"}));
  EXPECT_TRUE(matches({"kind == active"}));
  EXPECT_TRUE(matches({"name==\"default/3/web\""}));
  EXPECT_TRUE(matches({"nothing!=x"}));
  EXPECT_FALSE(matches({"nothing==\"\""}));
  EXPECT_TRUE(matches({"parent==\"\""}));
}

TEST(Filter, AsksForPresence) {
  EXPECT_TRUE(matches({"kind"}));
  EXPECT_FALSE(matches({"nothing"}));
  EXPECT_TRUE(matches({"labels.\"containerd.io/gc.root\""}));
  EXPECT_FALSE(matches({"labels.\"containerd.io/other\""}));
}

TEST(Filter, JoinsPathsOfFields) {
  EXPECT_TRUE(matches({"labels.empty.name"}));
  EXPECT_TRUE(matches({"labels.\"empty.name\"==\"x.y,z\""}));
  EXPECT_TRUE(matches({"labels.\"containerd.io/gc.root\"==yes,kind==active"}));
}

TEST(Filter, CommasMeanAndSeveralMeanOr) {
  EXPECT_FALSE(matches({"kind==active,name==x"}));
  EXPECT_TRUE(matches({"kind==view", "kind==active"}));
  EXPECT_FALSE(matches({"kind==view", "name==x"}));
}

TEST(Filter, MatchesExpressions) {
  EXPECT_TRUE(matches({"name~=web$"}));
  EXPECT_FALSE(matches({"name~=^web"}));
  EXPECT_TRUE(matches({"name~=/3.w/"}));
  EXPECT_TRUE(matches({"name~=|default/[0-9]|"}));
  EXPECT_TRUE(matches({"name~=\"w.b\",kind==active"}));
}

TEST(Filter, KnowsGosEscapes) {
  EXPECT_TRUE(matches({R"(kind=="\x61ctive")"}));
  EXPECT_TRUE(matches({R"(kind=="\u0061ct\151ve")"}));
  EXPECT_FALSE(matches({R"(kind=="\\active")"}));
}

TEST(Filter, RefusesWhatIsNone) {
  for (const char* text :
       {",", "==", "kind==", "kind=active", "kind=~x", "kind==a,", "kind==\"a", "kind==\"\\q\"",
        "kind==/a/b c", ".kind", "kind.", "kind==a b", "name~=(", "name~=[", "kind==\"\\u12\"",
        "kind==\"\\400\"", "name~=\"\n\"", "labels.\"x\"y"}) {
    const auto filter = Filter::parse({text});
    ASSERT_FALSE(filter) << text;
    EXPECT_EQ(filter.error().code, EINVAL);
    EXPECT_THAT(filter.error().message, HasSubstr("filter '")) << text;
  }
  EXPECT_FALSE(Filter::parse({std::string("kind==a\0b", 9)}));
  EXPECT_FALSE(Filter::parse(std::vector<std::string>(5000, "kind")));
  EXPECT_FALSE(Filter::parse({std::string(1 << 20, 'a')}));
}

// Expressions on which a backtracking matcher takes for ever.
TEST(Filter, IsNotSlowedDownByAnExpression) {
  const std::string text(20000, 'a');
  const auto filter = Filter::parse({"name~=(a*)*b$"});
  ASSERT_TRUE(filter);
  EXPECT_FALSE(filter->matches([&](const auto&) { return std::optional(text); }));
  EXPECT_FALSE(Filter::parse({"name~=((a{1,100}){1,100}){1,100}"}));
}

}  // namespace
}  // namespace obd::snapshotter
