// The write side of an image: how requests of any shape become whole pieces for the upper.
//
// append   wants whole sectors. A write that covers part of a sector reads the rest of it first;
//          that takes the layout lock exclusively, so that no other write to the sector can come in
//          between. File systems and VMs write whole sectors, and never do this.
//
// sparse   writes in place, bytes of any number, where the host's blocks are data already. The
//          first touch of a block (hole or zero extent) fills the whole block: what the request
//          does not cover is copied up from the layers below. Then the index says "data" for the
//          block, and so does the host's allocation, which is what overlaybd goes by. Whoever turns
//          a block into data or into a zero extent holds its range exclusively (block_locks_), so a
//          copy-up never overwrites a change that completed after it had read. Writes in place hold
//          theirs shared: one that were still under way when its block is zeroed and touched again
//          would show its bytes after a later zero had hidden them.

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/base/zeros.h"
#include "core/image/image.h"
#include "core/image/image_counters.h"
#include "core/image/image_resolve.h"

namespace obd {
namespace {

// Longest piece that goes to a layer at once. When space runs out, what comes back has to hold one.
constexpr uint64_t kMaxPiece = 1024 * 1024;
// Of one request, each with more space than the one before.
constexpr int kMostAttempts = 100;
constexpr uint64_t kZeroBufferSize = 1024 * 1024;

}  // namespace

Result<void> Image::check_writable() const {
  if (!upper_) return fail(EROFS, "{}: the image has no upper, so it is read-only", config_.path);
  if (!writable_) return fail(EROFS, "{}: the image is open read-only", config_.path);
  return {};
}

bool Image::reads_as_zeros(Sectors from, Sectors to) const {
  bool zeros = true;
  const auto looked = for_each_extent(from, to, [&](const Extent& extent) -> Result<bool> {
    return zeros = extent.kind != ExtentKind::data;
  });
  return looked && zeros;
}

// Makes a change with the layout lock held. When there is no space for it, waits for what can be
// given back, and tries again.
template <typename Change>
Result<void> Image::make_change(bool exclusive, Change&& change) {
  reclaimer_->before_change();
  const auto attempt = [&]() -> Result<void> {
    if (exclusive) {
      const WriterLock layout(layout_mutex_);
      return change();
    }
    const ReaderLock layout(layout_mutex_);
    return change();
  };
  auto made = attempt();
  for (int i = 0; i < kMostAttempts && !made && made.error().code == ENOSPC; ++i) {
    if (!reclaimer_->make_room()) break;
    made = attempt();
  }
  return made;
}

Result<void> Image::write(std::span<const std::byte> data, uint64_t offset, WriteOptions options) {
  OBD_TRY(check_writable());
  OBD_TRY(check_range(offset, data.size(), ENOSPC));
  const Sectors end = Sectors::ceil(offset + data.size());
  if (end > lsmt::kAddressableEnd) {
    return fail(EFBIG, "{}: byte {} is past the {} that the LSMT format can address", config_.path,
                offset + data.size(), lsmt::kAddressableEnd.bytes());
  }
  if (detect_zeroes_ != ZeroDetection::off && !data.empty() && is_all_zero(data)) {
    // An append layer's data is in new space at the next write, so there is nothing to keep.
    const bool may_trim =
        detect_zeroes_ == ZeroDetection::unmap || upper_->kind() == UpperKind::append;
    return zero(offset, data.size(), {.fua = options.fua, .may_trim = may_trim});
  }
  counters_->count(counters_->writes, counters_->write_bytes, data.size());
  const bool whole_sectors =
      is_aligned(offset, kSectorSize) && is_aligned(data.size(), kSectorSize);
  // What has been written when space runs out stays written; a later attempt goes on after it.
  const auto write_pieces = [&]() -> Result<void> {
    layout_mutex_.assert_held_shared();
    while (!data.empty()) {
      const uint64_t piece = std::min<uint64_t>(data.size(), kMaxPiece - offset % kMaxPiece);
      OBD_TRY(write_piece(data.first(piece), offset));
      data = data.subspan(piece);
      offset += piece;
    }
    return {};
  };
  OBD_TRY(make_change(upper_->kind() == UpperKind::append && !whole_sectors, write_pieces));
  return options.fua ? flush() : Result<void>();
}

Result<void> Image::write_piece(std::span<const std::byte> data, uint64_t offset) {
  return upper_->kind() == UpperKind::append ? write_append(data, offset)
                                             : write_sparse(data, offset);
}

Result<void> Image::write_append(std::span<const std::byte> data, uint64_t offset) {
  if (!is_aligned(offset, kSectorSize) || !is_aligned(data.size(), kSectorSize)) {
    return write_append_unaligned(data, offset);
  }
  return upper_->write(Sectors::floor(offset), data);
}

Result<void> Image::write_append_unaligned(std::span<const std::byte> data, uint64_t offset) {
  const uint64_t begin = align_down(offset, kSectorSize);
  const uint64_t end = align_up(offset + data.size(), kSectorSize);
  std::vector<std::byte> whole(end - begin);
  OBD_TRY(read_locked(std::span(whole).first(kSectorSize), begin));
  OBD_TRY(read_locked(std::span(whole).last(kSectorSize), end - kSectorSize));
  std::memcpy(&whole[offset - begin], data.data(), data.size());
  return upper_->write(Sectors::floor(begin), whole);
}

Result<void> Image::write_sparse(std::span<const std::byte> data, uint64_t offset) {
  const uint64_t block = upper_->granularity();
  const uint64_t begin = align_down(offset, block);
  const uint64_t end = std::min(align_up(offset + data.size(), block), size_);
  const Sectors from = Sectors::floor(begin), to = Sectors::floor(end);
  {
    const RangeLocks::Guard guard(block_locks_, RangeLocks::Mode::shared, from, to);
    if (upper_->is_all(ExtentKind::data, from, to)) return upper_->write_in_place(offset, data);
  }
  const RangeLocks::Guard guard(block_locks_, RangeLocks::Mode::exclusive, from, to);
  OBD_TRY(upper_->check_room(end - begin));
  return write_first_touch(data, offset, begin, end);
}

// [begin, end) are the whole blocks that the data touches.
Result<void> Image::write_first_touch(std::span<const std::byte> data, uint64_t offset,
                                      uint64_t begin, uint64_t end) {
  const uint64_t block = upper_->granularity();
  const uint64_t data_end = offset + data.size();

  // Writes the data's part of one block, with the rest of the block if that is not there yet.
  auto write_block = [&](uint64_t block_begin, uint64_t block_end) -> Result<void> {
    layout_mutex_.assert_held_shared();
    const uint64_t from = std::max(offset, block_begin), to = std::min(data_end, block_end);
    const auto part = data.subspan(from - offset, to - from);
    if (upper_->is_all(ExtentKind::data, Sectors::floor(block_begin), Sectors::floor(block_end))) {
      return upper_->write_in_place(from, part);
    }
    std::vector<std::byte> whole(block_end - block_begin);
    OBD_TRY(read_locked(whole, block_begin));
    std::memcpy(&whole[from - block_begin], part.data(), part.size());
    return upper_->write_in_place(block_begin, whole);
  };

  uint64_t middle_begin = offset, middle_end = data_end;
  const uint64_t first_block_end = std::min(begin + block, end);
  if (offset != begin || data_end < first_block_end) {
    OBD_TRY(write_block(begin, first_block_end));
    middle_begin = std::min(first_block_end, data_end);
  }
  if (middle_begin < middle_end && data_end != end) {
    const uint64_t last_block_begin = align_down(data_end, block);
    OBD_TRY(write_block(last_block_begin, end));
    middle_end = last_block_begin;
  }
  if (middle_begin < middle_end) {
    OBD_TRY(upper_->write_in_place(middle_begin,
                                   data.subspan(middle_begin - offset, middle_end - middle_begin)));
  }
  return upper_->record_data(Sectors::floor(begin), Sectors::floor(end));
}

Result<void> Image::zero(uint64_t offset, uint64_t length, ZeroOptions options) {
  OBD_TRY(check_writable());
  OBD_TRY(check_range(offset, length, ENOSPC));
  counters_->count(counters_->zeroes, counters_->zero_bytes, length);
  const bool whole_sectors = is_aligned(offset, kSectorSize) && is_aligned(length, kSectorSize);
  // FUA may ask for a flush although there is nothing to change.
  if (length != 0) {
    OBD_TRY(make_change(upper_->kind() == UpperKind::append && !whole_sectors, [&] {
      layout_mutex_.assert_held_shared();
      return zero_range(offset, length, options);
    }));
  }
  return options.fua ? flush() : Result<void>();
}

Result<void> Image::trim(uint64_t offset, uint64_t length, WriteOptions options) {
  ZeroOptions zero_options;
  zero_options.fua = options.fua;
  return zero(offset, length, zero_options);
}

Result<void> Image::zero_range(uint64_t offset, uint64_t length, const ZeroOptions& options) {
  // No layer can hold data where the format cannot address it, so zeros are there already.
  const uint64_t end = std::min(offset + length, lsmt::kAddressableEnd.bytes());
  if (offset >= end) return {};
  if (!options.may_trim) {
    if (options.fast_only) {
      return fail(EOPNOTSUPP, "{}: zeroing without trimming means writing zeros", config_.path);
    }
    return write_zeros(offset, end - offset);
  }

  const uint64_t block = upper_->granularity();
  const uint64_t whole_begin = align_up(offset, block);
  const uint64_t whole_end = end == size_ ? end : align_down(end, block);
  if (whole_begin >= whole_end) return zero_edge(offset, end);
  OBD_TRY(zero_edge(offset, whole_begin));
  OBD_TRY(zero_edge(whole_end, end));
  return zero_whole(whole_begin, whole_end);
}

// Zeroes parts of at most two blocks (append: sectors) by writing, unless they are zeros already.
Result<void> Image::zero_edge(uint64_t offset, uint64_t end) {
  if (offset >= end) return {};
  const Sectors first = Sectors::floor(offset), last = Sectors::ceil(end);
  const std::vector<std::byte> zeros(end - offset);
  if (upper_->kind() == UpperKind::append) {
    return reads_as_zeros(first, last) ? Result<void>() : write_append(zeros, offset);
  }
  const uint64_t block = upper_->granularity();
  const uint64_t begin = align_down(offset, block);
  const uint64_t stop = std::min(align_up(end, block), size_);
  // Looking and writing are one step: a first touch under way may be about to show other bytes.
  const RangeLocks::Guard guard(block_locks_, RangeLocks::Mode::exclusive, Sectors::floor(begin),
                                Sectors::floor(stop));
  return reads_as_zeros(first, last) ? Result<void>()
                                     : write_first_touch(zeros, offset, begin, stop);
}

Result<void> Image::zero_whole(uint64_t begin, uint64_t end) {
  const auto zero_all = [&]() -> Result<void> {
    for (Sectors at = Sectors::floor(begin), to = Sectors::floor(end); at < to;) {
      const Sectors part = std::min(lsmt::kMaxAlignedLength, to - at);
      OBD_TRY(upper_->zero(at, part, frozen_->reads_as_zeros(at, at + part)));
      at += part;
    }
    return {};
  };
  if (upper_->kind() == UpperKind::append) return zero_all();
  const RangeLocks::Guard guard(block_locks_, RangeLocks::Mode::exclusive, Sectors::floor(begin),
                                Sectors::floor(end));
  return zero_all();
}

Result<void> Image::write_zeros(uint64_t offset, uint64_t length) {
  const std::vector<std::byte> zeros(std::min(length, kZeroBufferSize));
  while (length > 0) {
    const uint64_t piece = std::min(length, kZeroBufferSize - offset % kZeroBufferSize);
    OBD_TRY(write_piece(std::span(zeros).first(piece), offset));
    offset += piece;
    length -= piece;
  }
  return {};
}

}  // namespace obd
