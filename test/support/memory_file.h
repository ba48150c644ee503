// The File of a MemoryFileSystem.
//
// Thread-safety: as File promises; everything happens under the file system's mutex.

#pragma once

#include <memory>
#include <string>

#include "test/support/memory_file_system.h"

namespace obd::test {

class MemoryFile final : public File {
 public:
  MemoryFile(MemoryFileSystem& fs, std::shared_ptr<MemoryFileSystem::Inode> inode, std::string path,
             Access access)
      : fs_(fs), inode_(std::move(inode)), path_(std::move(path)), access_(access) {}
  ~MemoryFile() override;
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  const std::string& path() const override { return path_; }
  Result<size_t> read_at(std::span<std::byte> out, uint64_t offset) const override;
  Result<void> write_at(std::span<const std::byte> data, uint64_t offset) override;
  Result<void> sync() override;
  Result<void> truncate(uint64_t size) override;
  Result<void> punch_hole(ByteRange range) override;
  void prefetch(ByteRange) const override {}
  [[nodiscard]] bool is_near(uint64_t) const override { return true; }
  Result<FileInfo> info() const override;
  Result<std::optional<ByteRange>> next_data(uint64_t offset) const override;
  Result<void> lock(LockMode mode) override;
  Result<void> refresh_lock_holder() const override { return {}; }
  Result<void> set_owner_and_mode(uid_t owner, gid_t group, mode_t mode) override;

 private:
  [[nodiscard]] Result<void> check_change(const char* verb) const;
  // The named file's share of the allocated space changed from `before`.
  void account(uint64_t before);

  MemoryFileSystem& fs_;
  std::shared_ptr<MemoryFileSystem::Inode> inode_;
  const std::string path_;
  const Access access_;
};

}  // namespace obd::test
