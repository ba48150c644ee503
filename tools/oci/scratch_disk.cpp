#include "tools/oci/scratch_disk.h"

#include <algorithm>
#include <array>
#include <cerrno>

namespace obd::oci {
namespace {

uint64_t blocks_in(uint64_t bytes) { return bytes / kBlockSize + (bytes % kBlockSize != 0); }

std::unexpected<Error> not_meant() { return fail(ENOTSUP, "is not what a scratch disk is for"); }

}  // namespace

ScratchDisk::ScratchDisk(const Image& image, File& file)
    : image_(image), file_(file), written_(blocks_in(image.size())) {}

uint64_t ScratchDisk::same_from(uint64_t offset, uint64_t length) const {
  const bool written = is_written(offset / kBlockSize);
  uint64_t end = align_down(offset, kBlockSize) + kBlockSize;
  while (end < offset + length && is_written(end / kBlockSize) == written) end += kBlockSize;
  return std::min(end - offset, length);
}

Result<void> ScratchDisk::read(std::span<std::byte> out, uint64_t offset) const {
  while (!out.empty()) {
    const auto piece = out.first(same_from(offset, out.size()));
    if (is_written(offset / kBlockSize)) {
      OBD_TRY(read_exactly(file_, piece, offset));
    } else {
      OBD_TRY(image_.read(piece, offset));
    }
    out = out.subspan(piece.size());
    offset += piece.size();
  }
  return {};
}

// Before a part of it is written.
Result<void> ScratchDisk::fill_block(uint64_t block) {
  if (is_written(block)) return {};
  std::array<std::byte, kBlockSize> bytes;
  const uint64_t offset = block * kBlockSize;
  const auto whole = std::span(bytes).first(std::min(kBlockSize, size() - offset));
  OBD_TRY(image_.read(whole, offset));
  OBD_TRY(file_.write_at(whole, offset));
  written_[block] = true;
  return {};
}

Result<void> ScratchDisk::write(std::span<const std::byte> data, uint64_t offset) {
  if (data.empty()) return {};
  const uint64_t end = offset + data.size();
  if (offset % kBlockSize != 0) OBD_TRY(fill_block(offset / kBlockSize));
  if (end % kBlockSize != 0 && end != size()) OBD_TRY(fill_block(end / kBlockSize));
  OBD_TRY(file_.write_at(data, offset));
  for (uint64_t block = offset / kBlockSize; block < blocks_in(end); ++block) {
    written_[block] = true;
  }
  return {};
}

Result<size_t> ScratchDisk::read_at(std::span<std::byte> out, uint64_t offset) const {
  if (offset >= size()) return 0;
  out = out.first(std::min<uint64_t>(out.size(), size() - offset));
  OBD_TRY(read(out, offset));
  return out.size();
}

Result<std::optional<ByteRange>> ScratchDisk::next_data(uint64_t offset) const {
  while (offset < size()) {
    const uint64_t length = same_from(offset, size() - offset);
    if (is_written(offset / kBlockSize)) return std::optional(ByteRange{offset, length});
    offset += length;
  }
  return std::optional<ByteRange>();
}

Result<FileInfo> ScratchDisk::info() const {
  OBD_TRY_ASSIGN(FileInfo info, file_.info());
  info.size = size();
  return info;
}

Result<void> ScratchDisk::write_at(std::span<const std::byte>, uint64_t) { return not_meant(); }
Result<void> ScratchDisk::sync() { return not_meant(); }
Result<void> ScratchDisk::truncate(uint64_t) { return not_meant(); }
Result<void> ScratchDisk::punch_hole(ByteRange) { return not_meant(); }
Result<void> ScratchDisk::lock(LockMode) { return not_meant(); }
Result<void> ScratchDisk::refresh_lock_holder() const { return not_meant(); }
Result<void> ScratchDisk::set_owner_and_mode(uid_t, gid_t, mode_t) { return not_meant(); }

}  // namespace obd::oci
