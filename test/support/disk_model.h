// What a virtual disk may hold: an oracle for reads, and for crashes.
//
// For each sector the model keeps every content that it has had, with the positions in the
// recording between which the operation that made it was in flight. From that follows what may be
// there after a crash at a given cut:
//   power cut:     the newest content that had completed before the last completed flush began (or
//                  that was written with FUA), or any later one;
//   server death:  the newest completed content, or one in flight.
// Without a recording all positions are 0 and only newest() is of use.
//
// Concurrent operations must not share a sector. An operation that failed may or may not have
// happened, until observe() tells what a read found.
//
// Units: bytes. Thread-safety: all functions may be called from many threads.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/base/units.h"

namespace obd::test {

class DiskModel {
 public:
  using Ticket = size_t;

  // A disk whose content is known and stable.
  explicit DiskModel(std::vector<std::byte> initial);

  [[nodiscard]] uint64_t size() const { return size_; }

  // An operation begins at a position of the recording, and ends.
  Ticket begin_write(std::span<const std::byte> data, uint64_t offset, size_t position);
  Ticket begin_zero(uint64_t offset, uint64_t length, size_t position);
  void complete(Ticket ticket, size_t position, bool fua);
  // A flush, from the position where it began, ended with success.
  void complete_flush(size_t begun, size_t position);

  // A read found this, whole, while nothing was in flight: of what was possible, this is so.
  void observe(std::span<const std::byte> content, size_t position);

  // The newest content, in-flight operations included.
  [[nodiscard]] std::vector<std::byte> newest() const;

  // The model of a disk whose server died at the cut: what had not begun never happens, what had
  // not completed never will.
  [[nodiscard]] std::unique_ptr<DiskModel> after_server_death(size_t cut) const;

  // What is wrong with the content found after a crash at the cut (the first `cut` entries of the
  // recording have happened); nullopt when nothing is.
  [[nodiscard]] std::optional<std::string> judge_power_cut(std::span<const std::byte> found,
                                                           size_t cut) const;
  [[nodiscard]] std::optional<std::string> judge_server_death(std::span<const std::byte> found,
                                                              size_t cut) const;

 private:
  static constexpr size_t kNever = SIZE_MAX;

  using Sector = std::array<std::byte, kSectorSize>;
  struct Operation {
    size_t begun = 0;
    size_t ended = kNever;  // completed; never for one that failed
    bool fua = false;
  };
  struct Version {
    Ticket operation = 0;
    Sector content;
  };
  struct Flush {
    size_t begun = 0;
    size_t ended = 0;
  };

  template <typename Change>
  Ticket begin(uint64_t offset, uint64_t length, size_t position, Change&& change);
  [[nodiscard]] std::span<const std::byte, kSectorSize> sector_of(
      std::span<const std::byte> content, size_t sector) const {
    return content.subspan(sector * kSectorSize).first<kSectorSize>();
  }
  template <typename Floor>
  [[nodiscard]] std::optional<std::string> judge(std::span<const std::byte> found, size_t cut,
                                                 Floor&& is_floor) const;
  [[nodiscard]] std::string accuse(size_t sector, std::span<const std::byte, kSectorSize> found,
                                   size_t floor, size_t cut) const;

  const uint64_t size_;
  mutable std::mutex mutex_;
  std::vector<Operation> operations_;
  std::vector<std::vector<Version>> sectors_;
  std::vector<Flush> flushes_;
};

}  // namespace obd::test
