#include "test/interop/troubled_host.h"

#include <utility>

namespace obd::interop {

namespace {

class TroubledFile : public File {
 public:
  TroubledFile(std::unique_ptr<File> file, Troubles& troubles)
      : file_(std::move(file)), troubles_(troubles) {}

  const std::string& path() const override { return file_->path(); }
  Result<size_t> read_at(std::span<std::byte> out, uint64_t offset) const override {
    return file_->read_at(out, offset);
  }
  Result<void> write_at(std::span<const std::byte> data, uint64_t offset) override {
    if (const int code = fault(troubles_.write_error)) {
      return fail_errno(code, "{}: cannot write {} bytes at {}", path(), data.size(), offset);
    }
    return file_->write_at(data, offset);
  }
  Result<void> sync() override {
    if (const int code = fault(troubles_.sync_error)) {
      return fail_errno(code, "{}: cannot sync", path());
    }
    return file_->sync();
  }
  Result<void> truncate(uint64_t size) override { return file_->truncate(size); }
  Result<void> punch_hole(ByteRange range) override { return file_->punch_hole(range); }
  void prefetch(ByteRange range) const override { file_->prefetch(range); }
  bool is_near(uint64_t offset) const override { return file_->is_near(offset); }
  Result<FileInfo> info() const override { return file_->info(); }
  Result<std::optional<ByteRange>> next_data(uint64_t offset) const override {
    return file_->next_data(offset);
  }
  Result<void> lock(LockMode mode) override { return file_->lock(mode); }
  Result<void> refresh_lock_holder() const override { return file_->refresh_lock_holder(); }
  Result<void> set_owner_and_mode(uid_t owner, gid_t group, mode_t mode) override {
    return file_->set_owner_and_mode(owner, group, mode);
  }

 private:
  [[nodiscard]] int fault(const std::atomic<int>& code) const {
    return path().ends_with(troubles_.suffix) ? code.load() : 0;
  }

  std::unique_ptr<File> file_;
  Troubles& troubles_;
};

}  // namespace

Result<std::unique_ptr<File>> TroubledHost::open(const std::string& path, Access access) {
  OBD_TRY_ASSIGN(auto file, posix_file_system().open(path, access));
  return std::make_unique<TroubledFile>(std::move(file), troubles_);
}

Result<std::unique_ptr<File>> TroubledHost::create(const std::string& path, mode_t mode) {
  OBD_TRY_ASSIGN(auto file, posix_file_system().create(path, mode));
  return std::make_unique<TroubledFile>(std::move(file), troubles_);
}

Result<void> TroubledHost::rename(const std::string& from, const std::string& to) {
  return posix_file_system().rename(from, to);
}

Result<void> TroubledHost::rename_new(const std::string& from, const std::string& to) {
  return posix_file_system().rename_new(from, to);
}

Result<void> TroubledHost::remove(const std::string& path) {
  return posix_file_system().remove(path);
}

Result<void> TroubledHost::sync_directory(const std::string& path) {
  return posix_file_system().sync_directory(path);
}

Result<bool> TroubledHost::exists(const std::string& path) {
  return posix_file_system().exists(path);
}

Result<std::string> TroubledHost::canonical(const std::string& path) {
  return posix_file_system().canonical(path);
}

Result<std::string> TroubledHost::boot_id() {
  if (!troubles_.boot_id.empty()) return troubles_.boot_id;
  return posix_file_system().boot_id();
}

}  // namespace obd::interop
