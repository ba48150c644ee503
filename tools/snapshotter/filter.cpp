#include "tools/snapshotter/filter.h"

#include <re2/re2.h>

#include <algorithm>
#include <cerrno>

#include "tools/snapshotter/log.h"

namespace obd::snapshotter {
namespace {

// Containerd sends one or two.
constexpr size_t kMaxFilters = 1000;
constexpr size_t kMaxLength = 64 << 10;
constexpr int64_t kMaxExpressionMemory = 1 << 20;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

bool is_operator(char c) { return c == '=' || c == '!' || c == '~'; }

int digit_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 16;
}

bool append_utf8(uint32_t code, std::string& text) {
  if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return false;
  const auto add = [&](uint32_t byte) { text += static_cast<char>(byte); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xC0 | code >> 6);
    add(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    add(0xE0 | code >> 12);
    add(0x80 | (code >> 6 & 0x3F));
    add(0x80 | (code & 0x3F));
  } else {
    add(0xF0 | code >> 18);
    add(0x80 | (code >> 12 & 0x3F));
    add(0x80 | (code >> 6 & 0x3F));
    add(0x80 | (code & 0x3F));
  }
  return true;
}

}  // namespace

class Filter::Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<std::vector<Selector>> parse() {
    std::vector<Selector> selectors;
    do {
      OBD_TRY_ASSIGN(Selector selector, parse_selector());
      selectors.push_back(std::move(selector));
    } while (take(','));
    if (!at_end()) return wrong("something else than a comma follows");
    return selectors;
  }

 private:
  std::unexpected<Error> wrong(std::string_view what) const {
    return fail(EINVAL, "filter '{}', at byte {}: {}", shown(text_), at_, what);
  }

  void skip_spaces() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }
  bool at_end() {
    skip_spaces();
    return at_ == text_.size();
  }
  // '\0' at the end; the filter holds none (parse() of Filter).
  char peek() {
    skip_spaces();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }

  Result<Selector> parse_selector() {
    Selector selector;
    do {
      OBD_TRY_ASSIGN(std::string field, parse_field());
      selector.path.push_back(std::move(field));
    } while (take('.'));
    if (at_end() || peek() == ',') return selector;
    const size_t start = at_;
    while (at_ < text_.size() && is_operator(text_[at_])) ++at_;
    const std::string_view op = text_.substr(start, at_ - start);
    if (op == "==") {
      selector.op = Operator::equal;
    } else if (op == "!=") {
      selector.op = Operator::not_equal;
    } else if (op == "~=") {
      selector.op = Operator::matches;
    } else {
      at_ = start;
      return wrong("is no operator: ==, != and ~= are");
    }
    OBD_TRY_ASSIGN(selector.value, parse_value(selector.op == Operator::matches));
    if (selector.op == Operator::matches) OBD_TRY(compile(selector));
    return selector;
  }

  Result<void> compile(Selector& selector) const {
    RE2::Options options;
    options.set_log_errors(false);
    options.set_max_mem(kMaxExpressionMemory);
    auto expression = std::make_shared<RE2>(selector.value, options);
    if (!expression->ok()) {
      return wrong(fmt::format("is no regular expression: {}", shown(expression->error())));
    }
    selector.expression = std::move(expression);
    return {};
  }

  Result<std::string> parse_field() {
    if (peek() == '"') return parse_quoted();
    const size_t start = at_;
    while (at_ < text_.size() && is_word(text_[at_])) ++at_;
    if (at_ == start) return wrong("a field's name is expected here");
    return std::string(text_.substr(start, at_ - start));
  }

  Result<std::string> parse_value(bool is_expression) {
    const char first = peek();
    if (first == '"' || (is_expression && (first == '/' || first == '|'))) return parse_quoted();
    const size_t start = at_;
    while (at_ < text_.size() && text_[at_] != ',' && !is_space(text_[at_])) ++at_;
    if (at_ == start) return wrong("a value is expected here");
    return std::string(text_.substr(start, at_ - start));
  }

  Result<std::string> parse_quoted() {
    const char quote = text_[at_++];
    std::string value;
    while (at_ < text_.size() && text_[at_] != quote) {
      const char c = text_[at_++];
      if (c == '\n') return wrong("a quoted text goes on past its line");
      if (c != '\\') {
        value += c;
      } else {
        OBD_TRY(parse_escape(quote, value));
      }
    }
    if (at_ == text_.size()) return wrong("a quoted text does not end");
    ++at_;
    return value;
  }

  Result<void> parse_escape(char quote, std::string& value) {
    constexpr std::string_view kNames = "abfnrtv\\";
    constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\";
    if (at_ == text_.size()) return wrong("an escape does not end");
    const char c = text_[at_++];
    if (c == quote) {
      value += c;
      return {};
    }
    if (const size_t found = kNames.find(c); found != std::string_view::npos) {
      value += kMeanings[found];
      return {};
    }
    if (c == 'x') return parse_code(16, 2, true, value);
    if (c == 'u') return parse_code(16, 4, false, value);
    if (c == 'U') return parse_code(16, 8, false, value);
    if (c >= '0' && c <= '7') {
      --at_;
      return parse_code(8, 3, true, value);
    }
    return wrong("is no escape that Go has");
  }

  Result<void> parse_code(int base, int digits, bool is_byte, std::string& value) {
    uint32_t code = 0;
    for (int i = 0; i < digits; ++i) {
      const int digit = at_ < text_.size() ? digit_value(text_[at_]) : 16;
      if (digit >= base) return wrong("a digit of an escape is expected here");
      code = code * static_cast<uint32_t>(base) + static_cast<uint32_t>(digit);
      ++at_;
    }
    if (is_byte && code > 0xFF) return wrong("an escape is larger than a byte");
    if (is_byte) {
      value += static_cast<char>(code);
      return {};
    }
    if (!append_utf8(code, value)) return wrong("an escape is no character");
    return {};
  }

  std::string_view text_;
  size_t at_ = 0;
};

Result<Filter> Filter::parse(const std::vector<std::string>& texts) {
  if (texts.size() > kMaxFilters) {
    return fail(EINVAL, "{} filters are more than the {} that are allowed", texts.size(),
                kMaxFilters);
  }
  Filter filter;
  for (const std::string& text : texts) {
    if (text.size() > kMaxLength) {
      return fail(EINVAL, "a filter of {} bytes is longer than the {} that are allowed",
                  text.size(), kMaxLength);
    }
    if (text.find('\0') != std::string::npos) return fail(EINVAL, "a filter holds a NUL");
    std::vector<Selector> selectors;  // of an empty text: none, so that everything matches
    if (!text.empty()) {
      OBD_TRY_ASSIGN(selectors, Parser(text).parse());
    }
    filter.alternatives_.push_back(std::move(selectors));
  }
  return filter;
}

bool Filter::matches(const Selector& selector, const FieldLookup& lookup) {
  const auto value = lookup(selector.path);
  switch (selector.op) {
    case Operator::present:
      return value.has_value();
    case Operator::equal:
      return value && *value == selector.value;
    case Operator::not_equal:
      return value.value_or("") != selector.value;
    case Operator::matches:
      break;
  }
  return RE2::PartialMatch(value.value_or(""), *selector.expression);
}

bool Filter::matches(const FieldLookup& lookup) const {
  if (alternatives_.empty()) return true;
  return std::ranges::any_of(alternatives_, [&](const auto& selectors) {
    return std::ranges::all_of(selectors,
                               [&](const Selector& selector) { return matches(selector, lookup); });
  });
}

}  // namespace obd::snapshotter
