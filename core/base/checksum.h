// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), computed with the processor's instructions
// where it has them (ISA-L).
//
// Thread-safety: pure functions.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace obd {

// The plain register form: starts from `crc`, no inversion before or after, so that
// crc32c(crc32c(c, a), b) == crc32c(c, ab). This is the form that ZFile stores.
uint32_t crc32c(uint32_t crc, std::span<const std::byte> data);

// The same over `count` bytes of zeros, however many, in a few steps.
uint32_t crc32c_of_zeros(uint32_t crc, uint64_t count);

}  // namespace obd
