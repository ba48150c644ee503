// A File that passes everything on to another: what a test watches or lets fail, it overrides.
//
// Ownership: owns the other file. Thread-safety and errors: the other file's.

#pragma once

#include <memory>
#include <utility>

#include "core/io/file.h"

namespace obd::test {

class ForwardingFile : public File {
 public:
  explicit ForwardingFile(std::unique_ptr<File> file) : file_(std::move(file)) {}

  [[nodiscard]] const std::string& path() const override { return file_->path(); }
  [[nodiscard]] Result<size_t> read_at(std::span<std::byte> out, uint64_t offset) const override {
    return file_->read_at(out, offset);
  }
  [[nodiscard]] Result<void> write_at(std::span<const std::byte> data, uint64_t offset) override {
    return file_->write_at(data, offset);
  }
  [[nodiscard]] Result<void> sync() override { return file_->sync(); }
  [[nodiscard]] Result<void> truncate(uint64_t size) override { return file_->truncate(size); }
  [[nodiscard]] Result<void> punch_hole(ByteRange range) override {
    return file_->punch_hole(range);
  }
  void prefetch(ByteRange range) const override { file_->prefetch(range); }
  [[nodiscard]] bool is_near(uint64_t offset) const override { return file_->is_near(offset); }
  [[nodiscard]] Result<FileInfo> info() const override { return file_->info(); }
  [[nodiscard]] Result<std::optional<ByteRange>> next_data(uint64_t offset) const override {
    return file_->next_data(offset);
  }
  [[nodiscard]] Result<void> lock(LockMode mode) override { return file_->lock(mode); }
  [[nodiscard]] Result<void> refresh_lock_holder() const override {
    return file_->refresh_lock_holder();
  }
  [[nodiscard]] Result<void> set_owner_and_mode(uid_t owner, gid_t group, mode_t mode) override {
    return file_->set_owner_and_mode(owner, group, mode);
  }

 private:
  std::unique_ptr<File> file_;
};

}  // namespace obd::test
