// UUIDs as LSMT headers carry them: text, 36 characters, upper-case hexadecimal, 8-4-4-4-12.
//
// Thread-safety: plain values.

#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace obd {

class Uuid {
 public:
  constexpr Uuid() = default;  // the nil UUID: "no parent"

  static Uuid random();
  // Accepts upper and lower case; anything but 8-4-4-4-12 hexadecimal digits is EINVAL.
  static Result<Uuid> parse(std::string_view text);

  [[nodiscard]] std::string text() const;  // upper case
  [[nodiscard]] bool is_nil() const { return *this == Uuid(); }
  [[nodiscard]] const std::array<uint8_t, 16>& bytes() const { return bytes_; }
  bool operator==(const Uuid&) const = default;

 private:
  std::array<uint8_t, 16> bytes_{};
};

}  // namespace obd
