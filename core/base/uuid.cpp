#include "core/base/uuid.h"

#include <cerrno>
#include <cstddef>
#include <random>

namespace obd {
namespace {

constexpr size_t kTextSize = 36;

constexpr bool is_dash_position(size_t i) { return i == 8 || i == 13 || i == 18 || i == 23; }

// -1 for anything but a hexadecimal digit.
constexpr int digit_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

Uuid Uuid::random() {
  std::random_device device;
  Uuid uuid;
  for (size_t i = 0; i < uuid.bytes_.size(); i += 4) {
    const uint32_t word = device();
    for (size_t j = 0; j < 4; ++j) uuid.bytes_[i + j] = static_cast<uint8_t>(word >> (8 * j));
  }
  // RFC 4122: version 4 (random), variant 1.
  uuid.bytes_[6] = static_cast<uint8_t>((uuid.bytes_[6] & 0x0F) | 0x40);
  uuid.bytes_[8] = static_cast<uint8_t>((uuid.bytes_[8] & 0x3F) | 0x80);
  return uuid;
}

Result<Uuid> Uuid::parse(std::string_view text) {
  const auto malformed = [&] {
    return fail(EINVAL,
                "\"{}\" is not a UUID: 32 hexadecimal digits in groups of 8-4-4-4-12 are wanted",
                text);
  };
  if (text.size() != kTextSize) return malformed();
  Uuid uuid;
  size_t digits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (is_dash_position(i)) {
      if (text[i] != '-') return malformed();
      continue;
    }
    const int value = digit_value(text[i]);
    if (value < 0) return malformed();
    uint8_t& byte = uuid.bytes_[digits / 2];
    byte = static_cast<uint8_t>(byte << 4 | value);
    ++digits;
  }
  return uuid;
}

std::string Uuid::text() const {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string text;
  text.reserve(kTextSize);
  for (const uint8_t byte : bytes_) {
    if (is_dash_position(text.size())) text += '-';
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace obd
