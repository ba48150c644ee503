#include "core/zfile/jump_table.h"

#include <bit>
#include <span>

#include "core/format/little_endian.h"
#include "core/format/zfile.h"

namespace obd {
namespace {

constexpr uint64_t kGroup = 32;  // blocks
// Any length, at any bit of a byte, lies within one 64-bit word.
constexpr size_t kWord = sizeof(uint64_t);
static_assert(std::bit_width(zfile::max_stored_size(zfile::kMaxBlockSize)) + 7 <= 64);

}  // namespace

JumpTable::JumpTable(uint32_t block_size, uint64_t start)
    : bits_(static_cast<unsigned>(std::bit_width(zfile::max_stored_size(block_size)))),
      end_(start) {}

void JumpTable::push_back(uint32_t stored_length) {
  if (count_ % kGroup == 0) {
    group_starts_.push_back(end_);
    packed_.resize((count_ + kGroup) * bits_ / 8 + kWord);
  }
  const uint64_t bit = count_ * bits_;
  const auto word = std::span(packed_).subspan(bit / 8).first<kWord>();
  store_le(word, load_le<uint64_t>(word) | uint64_t{stored_length} << bit % 8);
  end_ += stored_length;
  ++count_;
}

void JumpTable::shrink() {
  packed_.shrink_to_fit();
  group_starts_.shrink_to_fit();
}

uint32_t JumpTable::length_of(uint64_t block) const {
  const uint64_t bit = block * bits_;
  const auto word = std::span(packed_).subspan(bit / 8).first<kWord>();
  const uint64_t mask = (uint64_t{1} << bits_) - 1;
  return static_cast<uint32_t>(load_le<uint64_t>(word) >> bit % 8 & mask);
}

ByteRange JumpTable::find(uint64_t block) const {
  uint64_t offset = group_starts_[block / kGroup];
  for (uint64_t before = block - block % kGroup; before < block; ++before) {
    offset += length_of(before);
  }
  return {offset, length_of(block)};
}

}  // namespace obd
