// A set of up to 1024 blocks, as bits. Thread-safety: none.

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace obd {

class BlockBits {
 public:
  static constexpr size_t kBlocks = 1024;

  [[nodiscard]] bool test(size_t block) const {
    return (words_[block / kBits] >> (block % kBits) & 1) != 0;
  }

  void set(size_t from, size_t to) {
    for_each_word(from, to, [&](size_t word, uint64_t mask) { words_[word] |= mask; });
  }
  void clear(size_t from, size_t to) {
    for_each_word(from, to, [&](size_t word, uint64_t mask) { words_[word] &= ~mask; });
  }

  [[nodiscard]] size_t count(size_t from, size_t to) const {
    size_t found = 0;
    for_each_word(from, to, [&](size_t word, uint64_t mask) {
      found += static_cast<size_t>(std::popcount(words_[word] & mask));
    });
    return found;
  }

  // The first block at or after `from` that is in the set, or not; `end` if none is before it.
  [[nodiscard]] size_t next_set(size_t from, size_t end) const { return next(from, end, 0); }
  [[nodiscard]] size_t next_clear(size_t from, size_t end) const {
    return next(from, end, ~uint64_t{0});
  }

  // What is in both.
  [[nodiscard]] BlockBits operator&(const BlockBits& other) const {
    BlockBits both;
    for (size_t i = 0; i < words_.size(); ++i) both.words_[i] = words_[i] & other.words_[i];
    return both;
  }
  [[nodiscard]] BlockBits without(const BlockBits& other) const {
    BlockBits rest;
    for (size_t i = 0; i < words_.size(); ++i) rest.words_[i] = words_[i] & ~other.words_[i];
    return rest;
  }

 private:
  static constexpr size_t kBits = 64;

  template <typename Visit>
  static void for_each_word(size_t from, size_t to, Visit&& visit) {
    while (from < to) {
      const size_t bit = from % kBits;
      const size_t count = std::min(kBits - bit, to - from);
      const uint64_t ones = count == kBits ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
      visit(from / kBits, ones << bit);
      from += count;
    }
  }

  [[nodiscard]] size_t next(size_t from, size_t end, uint64_t flip) const {
    while (from < end) {
      const uint64_t word = (words_[from / kBits] ^ flip) >> (from % kBits);
      if (word != 0) return std::min(end, from + static_cast<size_t>(std::countr_zero(word)));
      from += kBits - from % kBits;
    }
    return end;
  }

  std::array<uint64_t, kBlocks / kBits> words_ = {};
};

}  // namespace obd
