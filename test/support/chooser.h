// Where the many possible outcomes of a crash are chosen: at random, or one after the other.
//
// Thread-safety: none.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "test/support/random.h"

namespace obd::test {

class Chooser {
 public:
  virtual ~Chooser() = default;

  // 0 to count - 1.
  virtual uint64_t pick(uint64_t count) = 0;

  // The next choices are about one file's (or folder's) unsynced operations 0 to operations - 1.
  virtual void begin_group(size_t operations) = 0;

  // `touching` lists, ascending, the group's operations that change one thing (a sector, the size,
  // a name): how many of them, from the first on, reached the device.
  virtual size_t reached(std::span<const size_t> touching) = 0;

  // How many of the `length` bytes by which a write extended the file did the new size reach:
  // 1 to length.
  virtual uint64_t reached_bytes(uint64_t length) = 0;

  // What a sector that was never written holds where the file has grown over it: zeros, or whatever
  // the device held before.
  virtual void fill_unwritten(std::span<std::byte> sector) = 0;
};

// Prefers the corners: all or nothing, everything up to a moment, sectors one by one.
class RandomChooser final : public Chooser {
 public:
  explicit RandomChooser(uint64_t seed) : random_(seed) {}

  uint64_t pick(uint64_t count) override { return random_.below(count); }
  void begin_group(size_t operations) override;
  size_t reached(std::span<const size_t> touching) override;
  uint64_t reached_bytes(uint64_t length) override;
  void fill_unwritten(std::span<std::byte> sector) override;

 private:
  enum class Mood { nothing, everything, up_to, one_by_one, mostly, hardly };

  Random random_;
  Mood mood_ = Mood::one_by_one;
  size_t moment_ = 0;
  bool garbage_ = false;
};

// Goes through every combination: use it, then next(), until that is false.
class EveryChoice final : public Chooser {
 public:
  uint64_t pick(uint64_t count) override;
  void begin_group(size_t) override {}
  size_t reached(std::span<const size_t> touching) override;
  uint64_t reached_bytes(uint64_t length) override;
  void fill_unwritten(std::span<std::byte>) override {}

  // Prepares the next combination; false when all have been.
  bool next();

 private:
  struct Choice {
    uint64_t value = 0;
    uint64_t count = 1;
  };

  std::vector<Choice> choices_;
  size_t position_ = 0;
};

}  // namespace obd::test
