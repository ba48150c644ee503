#include "core/base/checksum.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace obd {
namespace {

// A register is a polynomial over GF(2) modulo the CRC's; bit 31 is its coefficient of x^0.
constexpr uint32_t kPolynomial = 0x82F63B78;
constexpr uint32_t kOne = uint32_t{1} << 31;
constexpr uint32_t kByte = kOne >> 8;  // x^8: a byte of zeros multiplies the register by it

uint32_t product(uint32_t a, uint32_t b) {
  uint32_t sum = 0;
  for (uint32_t power = kOne; power != 0; power >>= 1) {
    if ((a & power) != 0) sum ^= b;
    b = (b >> 1) ^ ((b & 1) != 0 ? kPolynomial : 0);
  }
  return sum;
}

}  // namespace

uint32_t crc32c(uint32_t crc, std::span<const std::byte> data) {
  // ISA-L counts in int.
  constexpr size_t kMaxChunk = size_t{1} << 30;
  while (!data.empty()) {
    const auto chunk = data.first(std::min(data.size(), kMaxChunk));
    // The parameter lacks const, but the buffer is only read.
    auto* bytes = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(chunk.data()));
    crc = crc32_iscsi(bytes, static_cast<int>(chunk.size()), crc);
    data = data.subspan(chunk.size());
  }
  return crc;
}

uint32_t crc32c_of_zeros(uint32_t crc, uint64_t count) {
  for (uint32_t power = kByte; count != 0; count >>= 1) {
    if ((count & 1) != 0) crc = product(crc, power);
    power = product(power, power);
  }
  return crc;
}

}  // namespace obd
