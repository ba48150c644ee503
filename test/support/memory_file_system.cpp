#include "test/support/memory_file_system.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <thread>

#include "test/support/memory_file.h"

namespace obd::test {

MemoryFileSystem::MemoryFileSystem(std::string boot_id) : boot_id_(std::move(boot_id)) {}

MemoryFileSystem::MemoryFileSystem(const DiskState& disk, std::string boot_id)
    : boot_id_(std::move(boot_id)) {
  std::map<uint64_t, std::shared_ptr<Inode>> inodes;
  for (const auto& [name, number] : disk.names) {
    std::shared_ptr<Inode>& inode = inodes[number];
    if (!inode) {
      inode = std::make_shared<Inode>();
      inode->number = number;
      inode->bytes = disk.files.at(number);
      allocated_ += inode->bytes.allocated();
    }
    names_[name] = inode;
  }
  next_inode_ = disk.next_file;
}

MemoryFileSystem::~MemoryFileSystem() = default;

DiskState MemoryFileSystem::state() const {
  const std::lock_guard lock(mutex_);
  DiskState disk;
  disk.next_file = next_inode_;
  for (const auto& [name, inode] : names_) {
    disk.names[name] = inode->number;
    disk.files[inode->number] = inode->bytes;
  }
  return disk;
}

void MemoryFileSystem::set_boot_id(std::string boot_id) {
  const std::lock_guard lock(mutex_);
  boot_id_ = std::move(boot_id);
}

uint64_t MemoryFileSystem::allocated() const {
  const std::lock_guard lock(mutex_);
  return allocated_;
}

void MemoryFileSystem::start_recording(Trace so_far) {
  const std::lock_guard lock(mutex_);
  trace_ = std::move(so_far);
  recording_ = true;
}

Trace MemoryFileSystem::take_trace() {
  const std::lock_guard lock(mutex_);
  recording_ = false;
  return std::exchange(trace_, {});
}

size_t MemoryFileSystem::mark(std::string_view text) {
  const std::lock_guard lock(mutex_);
  record({.kind = TraceKind::mark, .path = std::string(text)});
  return trace_.empty() ? 0 : trace_.size() - 1;
}

void MemoryFileSystem::inject(Fault fault) {
  const std::lock_guard lock(mutex_);
  faults_.push_back({std::move(fault)});
}

void MemoryFileSystem::clear_faults() {
  const std::lock_guard lock(mutex_);
  faults_.clear();
  faults_hit_ = 0;
}

uint64_t MemoryFileSystem::faults_hit() const {
  const std::lock_guard lock(mutex_);
  return faults_hit_;
}

uint64_t MemoryFileSystem::count(Operation operation) const {
  const std::lock_guard lock(mutex_);
  const auto found = counts_.find(operation);
  return found == counts_.end() ? 0 : found->second;
}

void MemoryFileSystem::set_space_limit(std::optional<uint64_t> bytes) {
  const std::lock_guard lock(mutex_);
  space_limit_ = bytes;
}

void MemoryFileSystem::ignore_syncs(std::function<bool(const std::string& path)> ignored) {
  const std::lock_guard lock(mutex_);
  ignored_syncs_ = std::move(ignored);
}

void MemoryFileSystem::disturb(uint64_t seed) {
  const std::lock_guard lock(mutex_);
  disturbance_.emplace(seed);
}

void MemoryFileSystem::pause() {
  {
    const std::lock_guard lock(mutex_);
    if (!disturbance_ || !disturbance_->percent(10)) return;
  }
  std::this_thread::yield();
}

std::optional<MemoryFileSystem::Failure> MemoryFileSystem::failure(Operation operation,
                                                                   const std::string& path) {
  ++counts_[operation];
  for (Armed& armed : faults_) {
    if (armed.fault.operation != operation || !path.ends_with(armed.fault.path_suffix)) continue;
    ++armed.seen;
    if (armed.seen == armed.fault.nth || (armed.fault.sticky && armed.seen > armed.fault.nth)) {
      ++faults_hit_;
      return Failure{armed.fault.code, armed.fault.prefix};
    }
  }
  return std::nullopt;
}

void MemoryFileSystem::record(TraceEntry entry) {
  if (recording_) trace_.push_back(std::move(entry));
}

Result<void> MemoryFileSystem::write_locked(Inode& inode, const std::string& path,
                                            std::span<const std::byte> data, uint64_t offset) {
  size_t length = data.size();
  if (space_limit_) {
    const uint64_t free_bytes = *space_limit_ > allocated_ ? *space_limit_ - allocated_ : 0;
    length = static_cast<size_t>(
        inode.bytes.writable_with(free_bytes / SparseBytes::kPageSize, offset, length));
  }
  const uint64_t before = inode.bytes.allocated();
  ++inode.info.changed;
  inode.bytes.write(data.first(length), offset);
  if (inode.named) allocated_ += inode.bytes.allocated() - before;
  if (recording_ && length > 0) {
    record({.kind = TraceKind::write,
            .file = inode.number,
            .path = path,
            .offset = offset,
            .data = {data.begin(), data.begin() + static_cast<ptrdiff_t>(length)}});
  }
  if (length < data.size()) {
    return fail_errno(ENOSPC, "{}: write of {} bytes at {}", path, data.size(), offset);
  }
  return {};
}

Result<std::unique_ptr<File>> MemoryFileSystem::open(const std::string& path, Access access) {
  const std::lock_guard lock(mutex_);
  if (auto failed = failure(Operation::open, path)) {
    return fail_errno(failed->code, "{}: open", path);
  }
  const auto found = names_.find(path);
  if (found == names_.end()) return fail_errno(ENOENT, "{}: open", path);
  return std::make_unique<MemoryFile>(*this, found->second, path, access);
}

Result<std::unique_ptr<File>> MemoryFileSystem::create(const std::string& path, mode_t mode) {
  const std::lock_guard lock(mutex_);
  if (auto failed = failure(Operation::create, path)) {
    return fail_errno(failed->code, "{}: create", path);
  }
  if (names_.contains(path)) return fail_errno(EEXIST, "{}: create", path);
  auto inode = std::make_shared<Inode>();
  inode->number = next_inode_++;
  inode->info.mode = mode;
  names_[path] = inode;
  record({.kind = TraceKind::create, .file = inode->number, .path = path});
  return std::make_unique<MemoryFile>(*this, std::move(inode), path, Access::read_write);
}

void MemoryFileSystem::forget_name(const std::string& path) {
  const auto found = names_.find(path);
  if (found == names_.end()) return;
  found->second->named = false;
  allocated_ -= found->second->bytes.allocated();
  names_.erase(found);
}

Result<void> MemoryFileSystem::rename_locked(const std::string& from, const std::string& to,
                                             bool replace) {
  const std::lock_guard lock(mutex_);
  if (auto failed = failure(Operation::rename, from)) {
    return fail_errno(failed->code, "{}: rename to {}", from, to);
  }
  const auto found = names_.find(from);
  if (found == names_.end()) return fail_errno(ENOENT, "{}: rename to {}", from, to);
  if (!replace && names_.contains(to)) return fail_errno(EEXIST, "{}: rename to {}", from, to);
  const std::shared_ptr<Inode> inode = found->second;
  if (from != to) {
    forget_name(to);
    names_[to] = inode;
    names_.erase(from);
  }
  record({.kind = TraceKind::rename, .file = inode->number, .path = from, .target = to});
  return {};
}

Result<void> MemoryFileSystem::rename(const std::string& from, const std::string& to) {
  return rename_locked(from, to, true);
}

Result<void> MemoryFileSystem::rename_new(const std::string& from, const std::string& to) {
  return rename_locked(from, to, false);
}

Result<void> MemoryFileSystem::remove(const std::string& path) {
  const std::lock_guard lock(mutex_);
  if (auto failed = failure(Operation::remove, path)) {
    return fail_errno(failed->code, "{}: remove", path);
  }
  const auto found = names_.find(path);
  if (found == names_.end()) return fail_errno(ENOENT, "{}: remove", path);
  record({.kind = TraceKind::remove, .file = found->second->number, .path = path});
  forget_name(path);
  return {};
}

Result<void> MemoryFileSystem::sync_directory(const std::string& path) {
  const std::lock_guard lock(mutex_);
  if (auto failed = failure(Operation::sync_directory, path)) {
    return fail_errno(failed->code, "{}: fsync", path);
  }
  if (ignored_syncs_ && ignored_syncs_(path)) return {};
  record({.kind = TraceKind::sync_directory, .path = path});
  return {};
}

Result<bool> MemoryFileSystem::exists(const std::string& path) {
  const std::lock_guard lock(mutex_);
  return names_.contains(path);
}

Result<std::string> MemoryFileSystem::canonical(const std::string& path) {
  const std::lock_guard lock(mutex_);
  std::string normal = std::filesystem::path(path).lexically_normal().string();
  if (!names_.contains(normal)) return fail_errno(ENOENT, "{}: resolving the path", path);
  return normal;
}

Result<std::string> MemoryFileSystem::boot_id() {
  const std::lock_guard lock(mutex_);
  return boot_id_;
}

}  // namespace obd::test
