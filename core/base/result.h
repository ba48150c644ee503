// Errors as values.
//
// Every fallible function of the engine returns Result<T>. An Error carries an errno (what a kernel
// or an NBD client can act on) and one sentence for a person: which file, which field, which value,
// what to do. Results are [[nodiscard]]: an error cannot be dropped by accident.
//
// Thread-safety: plain values.

#pragma once

#include <fmt/format.h>

#include <expected>
#include <string>
#include <utility>

namespace obd {

struct Error {
  int code = 0;         // an errno, never 0
  std::string message;  // one sentence without a trailing full stop or newline
};

template <typename T>
class [[nodiscard]] Result : public std::expected<T, Error> {
 public:
  using std::expected<T, Error>::expected;
};

template <>
class [[nodiscard]] Result<void> : public std::expected<void, Error> {
 public:
  using std::expected<void, Error>::expected;
};

// Makes a failed Result of any type: `return fail(EINVAL, "{}: index_size {} is too large", ...)`.
template <typename... Args>
[[nodiscard]] std::unexpected<Error> fail(int code, fmt::format_string<Args...> format,
                                          Args&&... args) {
  return std::unexpected<Error>(Error{code, fmt::format(format, std::forward<Args>(args)...)});
}

// As fail(), with ": <text of code>" appended: for failed system calls.
[[nodiscard]] std::unexpected<Error> fail_errno_text(int code, std::string what);

template <typename... Args>
[[nodiscard]] std::unexpected<Error> fail_errno(int code, fmt::format_string<Args...> format,
                                                Args&&... args) {
  return fail_errno_text(code, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace obd

#define OBD_CONCAT_INNER(a, b) a##b
#define OBD_CONCAT(a, b) OBD_CONCAT_INNER(a, b)

// Runs an expression that gives a Result and returns its error from the enclosing function.
#define OBD_TRY(expression)                                                    \
  do {                                                                         \
    if (auto obd_try_result = (expression); !obd_try_result)                   \
      return std::unexpected<::obd::Error>(std::move(obd_try_result).error()); \
  } while (0)

// The same, keeping the value: OBD_TRY_ASSIGN(auto size, file.size());
#define OBD_TRY_ASSIGN(declaration, expression) \
  OBD_TRY_ASSIGN_INNER(OBD_CONCAT(obd_try_, __LINE__), declaration, expression)
#define OBD_TRY_ASSIGN_INNER(temporary, declaration, expression)                      \
  auto temporary = (expression);                                                      \
  if (!temporary) return std::unexpected<::obd::Error>(std::move(temporary).error()); \
  declaration = std::move(*temporary)
