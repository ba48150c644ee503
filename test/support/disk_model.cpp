#include "test/support/disk_model.h"

#include <fmt/format.h>

#include <algorithm>

namespace obd::test {
namespace {

bool same(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

bool all_zeros(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

DiskModel::DiskModel(std::vector<std::byte> initial)
    : size_(initial.size()), operations_{{0, 0, true}}, sectors_(initial.size() / kSectorSize) {
  for (size_t i = 0; i < sectors_.size(); ++i) {
    const auto content = sector_of(initial, i);
    Version& version = sectors_[i].emplace_back();
    std::copy(content.begin(), content.end(), version.content.begin());
  }
}

// change(out, from): puts the operation's bytes from `from` on, counted from its offset, into out.
template <typename Change>
DiskModel::Ticket DiskModel::begin(uint64_t offset, uint64_t length, size_t position,
                                   Change&& change) {
  const std::lock_guard lock(mutex_);
  const Ticket ticket = operations_.size();
  operations_.push_back({position});
  const uint64_t end = offset + length;
  for (uint64_t at = offset; at < end;) {
    const uint64_t next = std::min(end, align_down(at, kSectorSize) + kSectorSize);
    std::vector<Version>& versions = sectors_[at / kSectorSize];
    Version version{ticket, versions.back().content};
    change(std::span(version.content).subspan(at % kSectorSize, next - at), at - offset);
    versions.push_back(version);
    at = next;
  }
  return ticket;
}

DiskModel::Ticket DiskModel::begin_write(std::span<const std::byte> data, uint64_t offset,
                                         size_t position) {
  return begin(offset, data.size(), position, [&](std::span<std::byte> out, uint64_t from) {
    const auto bytes = data.subspan(from, out.size());
    std::copy(bytes.begin(), bytes.end(), out.begin());
  });
}

DiskModel::Ticket DiskModel::begin_zero(uint64_t offset, uint64_t length, size_t position) {
  return begin(offset, length, position, [](std::span<std::byte> out, uint64_t) {
    std::fill(out.begin(), out.end(), std::byte{0});
  });
}

void DiskModel::complete(Ticket ticket, size_t position, bool fua) {
  const std::lock_guard lock(mutex_);
  operations_[ticket].ended = position;
  operations_[ticket].fua = fua;
}

void DiskModel::complete_flush(size_t begun, size_t position) {
  const std::lock_guard lock(mutex_);
  flushes_.push_back({begun, position});
}

void DiskModel::observe(std::span<const std::byte> content, size_t position) {
  const std::lock_guard lock(mutex_);
  const Ticket ticket = operations_.size();
  operations_.push_back({position, position, false});
  for (size_t i = 0; i < sectors_.size(); ++i) {
    const auto found = sector_of(content, i);
    if (operations_[sectors_[i].back().operation].ended != kNever &&
        same(found, sectors_[i].back().content)) {
      continue;
    }
    Version& version = sectors_[i].emplace_back();
    version.operation = ticket;
    std::copy(found.begin(), found.end(), version.content.begin());
  }
}

std::vector<std::byte> DiskModel::newest() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::byte> content;
  content.reserve(size_);
  for (const auto& versions : sectors_) {
    content.insert(content.end(), versions.back().content.begin(), versions.back().content.end());
  }
  return content;
}

std::unique_ptr<DiskModel> DiskModel::after_server_death(size_t cut) const {
  const std::lock_guard lock(mutex_);
  auto result = std::make_unique<DiskModel>(std::vector<std::byte>(size_));
  result->operations_ = operations_;
  for (size_t i = 1; i < operations_.size(); ++i) {  // not the initial content
    Operation& operation = result->operations_[i];
    if (operation.ended >= cut) operation.ended = kNever;
  }
  for (size_t i = 0; i < sectors_.size(); ++i) {
    result->sectors_[i].clear();
    for (const Version& version : sectors_[i]) {
      const bool initial = result->sectors_[i].empty();
      if (initial || operations_[version.operation].begun < cut) {
        result->sectors_[i].push_back(version);
      }
    }
  }
  for (const Flush& flush : flushes_) {
    if (flush.ended < cut) result->flushes_.push_back(flush);
  }
  return result;
}

template <typename Floor>
std::optional<std::string> DiskModel::judge(std::span<const std::byte> found, size_t cut,
                                            Floor&& is_floor) const {
  if (found.size() != size_) {
    return fmt::format("the disk has {} bytes instead of {}", found.size(), size_);
  }
  for (size_t i = 0; i < sectors_.size(); ++i) {
    const std::vector<Version>& versions = sectors_[i];
    const auto content = sector_of(found, i);
    bool legal = false;
    size_t floor = 0;
    for (size_t v = versions.size(); v-- > 0;) {
      const Operation& operation = operations_[versions[v].operation];
      if (v > 0 && operation.begun >= cut) continue;
      legal = legal || same(content, versions[v].content);
      floor = v;
      if (legal || is_floor(operation)) break;
    }
    if (!legal) return accuse(i, content, floor, cut);
  }
  return std::nullopt;
}

std::optional<std::string> DiskModel::judge_power_cut(std::span<const std::byte> found,
                                                      size_t cut) const {
  const std::lock_guard lock(mutex_);
  size_t flushed = 0;  // what completed before this is stable
  for (const Flush& flush : flushes_) {
    if (flush.ended < cut) flushed = std::max(flushed, flush.begun);
  }
  return judge(found, cut, [&](const Operation& operation) {
    return operation.ended < flushed || (operation.fua && operation.ended < cut);
  });
}

std::optional<std::string> DiskModel::judge_server_death(std::span<const std::byte> found,
                                                         size_t cut) const {
  const std::lock_guard lock(mutex_);
  return judge(found, cut, [&](const Operation& operation) { return operation.ended < cut; });
}

std::string DiskModel::accuse(size_t sector, std::span<const std::byte, kSectorSize> found,
                              size_t floor, size_t cut) const {
  const std::vector<Version>& versions = sectors_[sector];
  std::string what = all_zeros(found) ? "zeros that are not legal" : "bytes nobody wrote there";
  for (size_t v = 0; v < versions.size(); ++v) {
    if (!same(found, versions[v].content)) continue;
    const Operation& operation = operations_[versions[v].operation];
    what = fmt::format("version {} (begun at {}, ended at {})", v, operation.begun,
                       operation.ended == kNever ? "-" : std::to_string(operation.ended));
    break;
  }
  const Operation& oldest = operations_[versions[floor].operation];
  return fmt::format(
      "sector {} of the disk holds {} after a crash at {}; the oldest legal version is {} (begun "
      "at "
      "{}, ended at {}) of {}",
      sector, what, cut, floor, oldest.begun,
      oldest.ended == kNever ? "-" : std::to_string(oldest.ended), versions.size());
}

}  // namespace obd::test
