// Giving a writable layer another size.
//
// Both headers hold the size, and the index log's wins (docs/format.md, section 3), so renaming a
// new log over the old one is the one step that changes it:
//
//   1. everything is flushed; a sparse file is given its new length if it grows
//   2. a log with the new size, without the extents past it and with the zero extents that hide
//      what lies below the new part, is written, synced and renamed, and the folder is synced
//   3. the data file's header gets the new size, and is synced: one sector
//   4. a sparse file that shrinks is cut
//
// A crash before 2 leaves the old size: a sparse file's tail past its disk is looked at by nobody.
// After 2 it is the new size: opening goes by the log, and the next session mends the data file.

#include <array>

#include "core/layer/writable_layer.h"

namespace obd {
namespace {

void insert(LiveIndex& index, const Extent& extent) {
  index.reserve(1);
  index.insert(extent);
}

// The extents before `end`, and zero extents over the ranges.
LiveIndex resized(const LiveIndex& index, Sectors end, std::span<const SectorRange> hidden) {
  LiveIndex result;
  std::array<Extent, 256> found;
  for (Sectors from;;) {
    const size_t count = index.find(from, end, found);
    for (size_t i = 0; i < count; ++i) insert(result, found[i]);
    if (count < found.size()) break;
    from = found.back().end();
  }
  for (SectorRange range : hidden) {
    while (range.from < range.to) {
      const Sectors part = std::min(lsmt::kMaxAlignedLength, range.to - range.from);
      insert(result, {range.from, part, Sectors(), ExtentKind::zero, kUpperLayer});
      range.from += part;
    }
  }
  return result;
}

}  // namespace

Result<void> WritableLayer::resize(uint64_t size, std::span<const SectorRange> hidden) {
  OBD_TRY(check_usable());
  if (size == 0 || !is_aligned(size, kSectorSize) || size > kMaxDiskSize) {
    return fail(EINVAL, "{}: a disk cannot have {} bytes: it takes a multiple of {}, up to {}",
                data_->path(), size, kSectorSize, kMaxDiskSize);
  }
  OBD_TRY(refuse_other_names("resizing it"));
  OBD_TRY(ensure_session());
  OBD_TRY(flush());
  const uint64_t old_file_size = lsmt::kHeaderSize + virtual_size_;
  const bool grows = size > virtual_size_;
  if (kind_ == UpperKind::sparse && grows) {
    // First to the old length: what an interrupted change left behind it must not become data for a
    // reader that goes by allocation.
    OBD_TRY(data_->truncate(old_file_size));
    OBD_TRY(data_->truncate(lsmt::kHeaderSize + size));
    data_dirty_ = true;
  }

  lsmt::Header header = header_;
  header.virtual_size = size;
  LiveIndex next =
      resized(index_at_rest(), std::min(Sectors::floor(size), lsmt::kAddressableEnd), hidden);
  OBD_TRY(replace_log(header, next));
  {
    const WriterLock index_lock(index_mutex_);
    index_ = std::move(next);
  }
  header_ = header;
  virtual_size_ = size;
  end_session();

  const auto bytes = lsmt::encode_header(header_);
  auto mend_data = [&]() -> Result<void> {
    OBD_TRY(data_->write_at(std::span(bytes).first(kSectorSize), 0));
    OBD_TRY(data_->sync());
    if (kind_ == UpperKind::append || grows) return {};
    OBD_TRY(data_->truncate(lsmt::kHeaderSize + size));
    return data_->sync();
  };
  // The disk has its new size whatever becomes of this; the next session begins with mending it.
  if (auto mended = mend_data(); !mended) return give_up(std::move(mended).error(), false);
  return {};
}

}  // namespace obd
