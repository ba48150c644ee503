#include "test/support/memory_file.h"

#include <algorithm>
#include <cerrno>

#include "core/base/units.h"

namespace obd::test {
namespace {

constexpr uint64_t kMaxFileSize = (uint64_t{1} << 63) - 1;

}  // namespace

MemoryFile::~MemoryFile() {
  const std::lock_guard lock(fs_.mutex_);
  inode_->locks.erase(this);
}

Result<void> MemoryFile::check_change(const char* verb) const {
  if (access_ == Access::read_write) return {};
  return fail(EBADF, "{}: cannot {}: the file was opened read-only", path_, verb);
}

void MemoryFile::account(uint64_t before) {
  if (inode_->named) fs_.allocated_ += inode_->bytes.allocated() - before;
}

Result<size_t> MemoryFile::read_at(std::span<std::byte> out, uint64_t offset) const {
  std::unique_lock lock(fs_.mutex_);
  if (auto failure = fs_.failure(Operation::read, path_)) {
    return fail_errno(failure->code, "{}: read of {} bytes at {}", path_, out.size(), offset);
  }
  if (!fs_.disturbance_) return inode_->bytes.read(out, offset);
  size_t done = 0;
  while (done < out.size()) {
    const size_t step =
        std::min<size_t>(out.size() - done, kSectorSize - (offset + done) % kSectorSize);
    const size_t count = inode_->bytes.read(out.subspan(done, step), offset + done);
    done += count;
    if (count < step) break;
    lock.unlock();
    fs_.pause();
    lock.lock();
  }
  return done;
}

Result<void> MemoryFile::write_at(std::span<const std::byte> data, uint64_t offset) {
  OBD_TRY(check_change("write"));
  if (data.size() > kMaxFileSize || offset > kMaxFileSize - data.size()) {
    return fail_errno(EFBIG, "{}: write of {} bytes at {}", path_, data.size(), offset);
  }
  std::unique_lock lock(fs_.mutex_);
  if (auto failure = fs_.failure(Operation::write, path_)) {
    size_t prefix = std::min(failure->prefix, data.size());
    if (prefix < data.size() && offset + prefix < inode_->bytes.size()) {
      const uint64_t sector_begin = align_down(offset + prefix, kSectorSize);
      prefix = sector_begin > offset ? sector_begin - offset : 0;
    }
    OBD_TRY(fs_.write_locked(*inode_, path_, data.first(prefix), offset));
    return fail_errno(failure->code, "{}: write of {} bytes at {}", path_, data.size(), offset);
  }
  if (!fs_.disturbance_ || fs_.recording_) {
    auto result = fs_.write_locked(*inode_, path_, data, offset);
    lock.unlock();
    fs_.pause();
    return result;
  }
  while (!data.empty()) {
    const size_t step = std::min<size_t>(data.size(), kSectorSize - offset % kSectorSize);
    OBD_TRY(fs_.write_locked(*inode_, path_, data.first(step), offset));
    data = data.subspan(step);
    offset += step;
    lock.unlock();
    fs_.pause();
    lock.lock();
  }
  return {};
}

Result<void> MemoryFile::sync() {
  size_t begun = 0;
  {
    const std::lock_guard lock(fs_.mutex_);
    if (auto failure = fs_.failure(Operation::sync, path_)) {
      begun = fs_.trace_.size();
      fs_.record({.kind = TraceKind::sync_begin, .file = inode_->number, .path = path_});
      fs_.record(
          {.kind = TraceKind::sync_failed, .file = inode_->number, .path = path_, .begun = begun});
      return fail_errno(failure->code, "{}: fdatasync", path_);
    }
    if (fs_.ignored_syncs_ && fs_.ignored_syncs_(path_)) return {};
    begun = fs_.trace_.size();
    fs_.record({.kind = TraceKind::sync_begin, .file = inode_->number, .path = path_});
  }
  // What other threads write from here on is not covered.
  fs_.pause();
  const std::lock_guard lock(fs_.mutex_);
  fs_.record({.kind = TraceKind::sync_end, .file = inode_->number, .path = path_, .begun = begun});
  return {};
}

Result<void> MemoryFile::truncate(uint64_t size) {
  OBD_TRY(check_change("truncate"));
  if (size > kMaxFileSize) return fail_errno(EFBIG, "{}: truncate to {}", path_, size);
  const std::lock_guard lock(fs_.mutex_);
  if (auto failure = fs_.failure(Operation::truncate, path_)) {
    return fail_errno(failure->code, "{}: truncate to {}", path_, size);
  }
  const uint64_t before = inode_->bytes.allocated();
  ++inode_->info.changed;
  inode_->bytes.truncate(size);
  account(before);
  fs_.record({.kind = TraceKind::truncate, .file = inode_->number, .path = path_, .length = size});
  return {};
}

Result<void> MemoryFile::punch_hole(ByteRange range) {
  OBD_TRY(check_change("punch a hole"));
  const std::lock_guard lock(fs_.mutex_);
  if (auto failure = fs_.failure(Operation::punch, path_)) {
    return fail_errno(failure->code, "{}: punching {} bytes at {}", path_, range.length,
                      range.offset);
  }
  const uint64_t before = inode_->bytes.allocated();
  ++inode_->info.changed;
  inode_->bytes.punch(range);
  account(before);
  fs_.record({.kind = TraceKind::punch,
              .file = inode_->number,
              .path = path_,
              .offset = range.offset,
              .length = range.length});
  return {};
}

Result<FileInfo> MemoryFile::info() const {
  const std::lock_guard lock(fs_.mutex_);
  FileInfo info = inode_->info;
  info.size = inode_->bytes.size();
  info.allocated = inode_->bytes.allocated();
  info.block_size = SparseBytes::kPageSize;
  info.device = 1;
  info.inode = inode_->number;
  return info;
}

Result<std::optional<ByteRange>> MemoryFile::next_data(uint64_t offset) const {
  const std::lock_guard lock(fs_.mutex_);
  return inode_->bytes.next_data(offset);
}

Result<void> MemoryFile::lock(LockMode mode) {
  const std::lock_guard lock(fs_.mutex_);
  for (const auto& [holder, held] : inode_->locks) {
    if (holder == this) continue;
    if (mode == LockMode::exclusive || held == LockMode::exclusive) {
      return fail(EBUSY, "{}: the file is in use by process 1", path_);
    }
  }
  inode_->locks[this] = mode;
  return {};
}

Result<void> MemoryFile::set_owner_and_mode(uid_t owner, gid_t group, mode_t mode) {
  const std::lock_guard lock(fs_.mutex_);
  ++inode_->info.changed;
  inode_->info.owner = owner;
  inode_->info.group = group;
  inode_->info.mode = mode;
  return {};
}

}  // namespace obd::test
