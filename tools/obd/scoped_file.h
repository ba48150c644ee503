// A file under a temporary name, removed when its owner goes away, whatever the reason, unless it
// was given its final name.
//
// Ownership: owns the open file and its temporary name. Thread-safety: none.

#pragma once

#include <memory>
#include <string>

#include "core/io/file.h"

namespace obd::tool {

class ScopedFile {
 public:
  // Makes a new, empty file with a name that nobody else has, in `directory`.
  static Result<ScopedFile> create(FileSystem& fs, const std::string& directory, mode_t mode);
  ScopedFile(ScopedFile&& other) noexcept;
  ScopedFile& operator=(ScopedFile&&) = delete;
  ~ScopedFile();

  [[nodiscard]] File& file() { return *file_; }

  // Renames the file, in its folder, and makes the name stable; the content has to be synced
  // already. Without `replace`, a name that is taken is EEXIST.
  Result<void> keep_as(const std::string& path, bool replace);

 private:
  ScopedFile(FileSystem& fs, std::unique_ptr<File> file) : fs_(&fs), file_(std::move(file)) {}

  FileSystem* fs_;
  std::unique_ptr<File> file_;  // null: moved from, or kept
};

}  // namespace obd::tool
