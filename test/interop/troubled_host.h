// The real host with faults on demand: files that cannot be written or synced, and a new boot.
//
// Everything goes to posix_file_system(); a fault concerns the files whose path ends in a given
// suffix. Thread-safety: set faults while no request runs.

#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "core/io/file.h"

namespace obd::interop {

struct Troubles {
  explicit Troubles(std::string path_suffix) : suffix(std::move(path_suffix)) {}

  const std::string suffix;         // of the paths that the two faults below concern
  std::atomic<int> write_error{0};  // errno of every write; 0: writes work
  std::atomic<int> sync_error{0};
  std::string boot_id{};  // empty: the host's own
};

class TroubledHost : public FileSystem {
 public:
  explicit TroubledHost(Troubles& troubles) : troubles_(troubles) {}

  Result<std::unique_ptr<File>> open(const std::string& path, Access access) override;
  Result<std::unique_ptr<File>> create(const std::string& path, mode_t mode) override;
  Result<void> rename(const std::string& from, const std::string& to) override;
  Result<void> rename_new(const std::string& from, const std::string& to) override;
  Result<void> remove(const std::string& path) override;
  Result<void> sync_directory(const std::string& path) override;
  Result<bool> exists(const std::string& path) override;
  Result<std::string> canonical(const std::string& path) override;
  Result<std::string> boot_id() override;

 private:
  Troubles& troubles_;
};

}  // namespace obd::interop
