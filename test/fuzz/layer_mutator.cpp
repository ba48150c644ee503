// A mutator for tar files: three times out of four the checksums of what may be headers are made
// right again after the change, as they would stop a fuzzer at the first one.

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

constexpr size_t kBlock = 512;
constexpr size_t kChecksumAt = 148;
constexpr size_t kChecksumSize = 8;

bool may_be_header(std::span<const uint8_t> block) {
  const auto digits = block.subspan(kChecksumAt, 6);
  return std::ranges::count_if(digits, [](uint8_t c) { return c >= '0' && c <= '7'; }) >= 5;
}

void repair(std::span<uint8_t> block) {
  const auto field = block.subspan(kChecksumAt, kChecksumSize);
  std::ranges::fill(field, ' ');
  uint64_t sum = 0;
  for (const uint8_t byte : block) sum += byte;
  std::ranges::copy(fmt::format("{:06o}", sum), field.begin());
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  // Whole blocks, so that what follows a change stays where it was.
  if (seed % 8 != 0 && size > kBlock) size -= size % kBlock;
  if (seed % 4 != 0) {
    for (size_t at = 0; at + kBlock <= size; at += kBlock) {
      const std::span<uint8_t> block(data + at, kBlock);
      if (may_be_header(block)) repair(block);
    }
  }
  return size;
}
