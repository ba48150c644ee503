#include "core/base/checksum.h"

#include <gtest/gtest.h>

#include <string_view>
#include <vector>

namespace obd {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

// The definition, bit by bit.
uint32_t crc32c_by_bits(uint32_t crc, std::span<const std::byte> data) {
  for (const std::byte byte : data) {
    crc ^= std::to_integer<uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
  }
  return crc;
}

std::vector<std::byte> pattern(size_t size) {
  std::vector<std::byte> data(size);
  uint32_t state = 1;
  for (std::byte& byte : data) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<std::byte>(state >> 24);
  }
  return data;
}

TEST(Crc32c, KnownValueWithTheUsualInversions) {
  EXPECT_EQ(~crc32c(~0u, bytes_of("123456789")), 0xE3069283u);
}

TEST(Crc32c, IsThePlainRegister) {
  EXPECT_EQ(crc32c(0x12345678, {}), 0x12345678u);
  const std::vector<std::byte> zeros(32);
  EXPECT_EQ(crc32c(0, zeros), 0u);  // inversions would show here
}

TEST(Crc32c, AgreesWithTheDefinitionAtAllSmallLengthsAndAlignments) {
  const auto data = pattern(600);
  for (size_t begin = 0; begin < 8; ++begin) {
    for (size_t length = 0; length < 512; ++length) {
      const auto part = std::span(data).subspan(begin, length);
      ASSERT_EQ(crc32c(100007, part), crc32c_by_bits(100007, part)) << begin << "+" << length;
    }
  }
}

TEST(Crc32c, Continues) {
  const auto data = pattern(100'000);
  const auto all = std::span(data);
  const uint32_t whole = crc32c(7, all);
  EXPECT_EQ(whole, crc32c_by_bits(7, all));
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{4095}, size_t{65536}, all.size()}) {
    EXPECT_EQ(crc32c(crc32c(7, all.first(cut)), all.subspan(cut)), whole) << cut;
  }
}

TEST(Crc32cOfZeros, AgreesWithZerosThatAreThere) {
  const std::vector<std::byte> zeros(100'000);
  for (const uint32_t crc : {0u, 1u, 0x12345678u, ~0u}) {
    for (const size_t count : {0u, 1u, 2u, 3u, 16u, 255u, 4096u, 99'999u, 100'000u}) {
      EXPECT_EQ(crc32c_of_zeros(crc, count), crc32c(crc, std::span(zeros).first(count))) << count;
    }
  }
}

TEST(Crc32cOfZeros, HasNoLimit) {
  const uint64_t half = uint64_t{1} << 62;
  EXPECT_EQ(crc32c_of_zeros(crc32c_of_zeros(7, half), half), crc32c_of_zeros(7, 2 * half));
}

}  // namespace
}  // namespace obd
