// Containerd's filters, with which clients choose snapshots: `name==web,labels."a/b"~=^x`.
//
//   filter    = selector {"," selector}        all of them have to match
//   selector  = field {"." field} [operator value]
//   operator  = "==" | "!=" | "~="              "~=": the value is a regular expression
//   field     = word | quoted
//   value     = quoted | characters without spaces and commas
//   quoted    = "..." with the escapes of Go; after "~=" also /.../ and |...|
//
// A selector without an operator asks whether the field is there. Regular expressions take time
// linear in the text (RE2), whatever a client sends.
//
// Thread-safety: a Filter may be used from many threads. Errors: EINVAL quotes the place.

#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace re2 {
class RE2;
}

namespace obd::snapshotter {

// The value of a field; nullopt: it is not there.
using FieldLookup = std::function<std::optional<std::string>(const std::vector<std::string>& path)>;

class Filter {
 public:
  // Matches what any of these matches; without any, everything.
  static Result<Filter> parse(const std::vector<std::string>& texts);

  [[nodiscard]] bool matches(const FieldLookup& lookup) const;

 private:
  enum class Operator { present, equal, not_equal, matches };
  struct Selector {
    std::vector<std::string> path;
    Operator op = Operator::present;
    std::string value;
    std::shared_ptr<const re2::RE2> expression;  // of Operator::matches
  };
  class Parser;

  static bool matches(const Selector& selector, const FieldLookup& lookup);

  std::vector<std::vector<Selector>> alternatives_;
};

}  // namespace obd::snapshotter
