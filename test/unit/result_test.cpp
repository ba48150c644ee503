#include "core/base/result.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

namespace obd {
namespace {

Result<int> parse_digit(char c) {
  if (c < '0' || c > '9') return fail(EINVAL, "'{}' is no digit", c);
  return c - '0';
}

Result<int> add_digits(char a, char b) {
  OBD_TRY_ASSIGN(const int first, parse_digit(a));
  OBD_TRY_ASSIGN(const int second, parse_digit(b));
  return first + second;
}

Result<void> require_digit(char c, int& calls_after) {
  OBD_TRY(parse_digit(c));
  ++calls_after;
  return {};
}

TEST(Result, CarriesTheValue) {
  const auto sum = add_digits('3', '4');
  ASSERT_TRUE(sum);
  EXPECT_EQ(*sum, 7);
}

TEST(Result, TryAssignReturnsTheFirstError) {
  const auto sum = add_digits('x', 'y');
  ASSERT_FALSE(sum);
  EXPECT_EQ(sum.error().code, EINVAL);
  EXPECT_EQ(sum.error().message, "'x' is no digit");
}

TEST(Result, TryStopsOnlyOnErrors) {
  int calls_after = 0;
  EXPECT_TRUE(require_digit('1', calls_after));
  EXPECT_FALSE(require_digit('-', calls_after));
  EXPECT_EQ(calls_after, 1);
}

TEST(Result, MovesValuesThatCannotBeCopied) {
  const auto make = []() -> Result<std::unique_ptr<int>> { return std::make_unique<int>(5); };
  const auto use = [&]() -> Result<int> {
    OBD_TRY_ASSIGN(const auto pointer, make());
    return *pointer;
  };
  EXPECT_EQ(use().value(), 5);
}

TEST(Result, ErrnoTextIsAppended) {
  const Result<void> failed = fail_errno(ENOSPC, "{}: cannot write", "/x");
  EXPECT_EQ(failed.error().code, ENOSPC);
  EXPECT_EQ(failed.error().message, "/x: cannot write: No space left on device");
}

TEST(Result, ErrnoTextIsNotAFormatString) {
  const Result<void> failed = fail_errno_text(EIO, "a {} b");
  EXPECT_EQ(failed.error().message, "a {} b: Input/output error");
}

}  // namespace
}  // namespace obd
