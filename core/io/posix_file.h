// PosixFile: a regular file of the host, open.
//
// Opened by posix_file_system() and used by everyone else through File, where the contract is.

#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "core/base/mutex.h"
#include "core/io/file.h"

namespace obd {

class PosixFile final : public File {
 public:
  // Takes over the descriptor, which must be that of a regular file.
  PosixFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;
  ~PosixFile() override;

  [[nodiscard]] const std::string& path() const override { return path_; }
  [[nodiscard]] Result<size_t> read_at(std::span<std::byte> out, uint64_t offset) const override;
  [[nodiscard]] Result<void> write_at(std::span<const std::byte> data, uint64_t offset) override;
  [[nodiscard]] Result<void> sync() override;
  [[nodiscard]] Result<void> truncate(uint64_t size) override;
  [[nodiscard]] Result<void> punch_hole(ByteRange range) override;
  void prefetch(ByteRange range) const override;
  [[nodiscard]] bool is_near(uint64_t offset) const override;
  [[nodiscard]] Result<FileInfo> info() const override;
  [[nodiscard]] Result<std::optional<ByteRange>> next_data(uint64_t offset) const override;
  [[nodiscard]] Result<void> lock(LockMode mode) override;
  [[nodiscard]] Result<void> refresh_lock_holder() const override;
  [[nodiscard]] Result<void> set_owner_and_mode(uid_t owner, gid_t group, mode_t mode) override;

 private:
  struct HeldLock {
    short type;  // F_RDLCK or F_WRLCK
    pid_t pid;   // whose byte marks the holder
  };

  const int fd_;
  const std::string path_;
  mutable Mutex lock_mutex_;
  mutable std::optional<HeldLock> held_lock_;
};

}  // namespace obd
