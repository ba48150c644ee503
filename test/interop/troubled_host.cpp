#include "test/interop/troubled_host.h"

#include <utility>

#include "test/support/forwarding_file.h"

namespace obd::interop {

namespace {

class TroubledFile final : public test::ForwardingFile {
 public:
  TroubledFile(std::unique_ptr<File> file, Troubles& troubles)
      : ForwardingFile(std::move(file)), troubles_(troubles) {}

  Result<void> write_at(std::span<const std::byte> data, uint64_t offset) override {
    if (const int code = fault(troubles_.write_error)) {
      return fail_errno(code, "{}: cannot write {} bytes at {}", path(), data.size(), offset);
    }
    return ForwardingFile::write_at(data, offset);
  }
  Result<void> sync() override {
    if (const int code = fault(troubles_.sync_error)) {
      return fail_errno(code, "{}: cannot sync", path());
    }
    return ForwardingFile::sync();
  }

 private:
  [[nodiscard]] int fault(const std::atomic<int>& code) const {
    return path().ends_with(troubles_.suffix) ? code.load() : 0;
  }

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
