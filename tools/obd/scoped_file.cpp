#include "tools/obd/scoped_file.h"

#include <filesystem>
#include <utility>

#include "core/base/uuid.h"

namespace obd::tool {

Result<ScopedFile> ScopedFile::create(FileSystem& fs, const std::string& directory, mode_t mode) {
  const std::string name = ".obd-" + Uuid::random().text() + ".tmp";
  const std::string path = (std::filesystem::path(directory) / name).string();
  OBD_TRY_ASSIGN(auto file, fs.create(path, mode));
  return ScopedFile(fs, std::move(file));
}

ScopedFile::ScopedFile(ScopedFile&& other) noexcept
    : fs_(other.fs_), file_(std::exchange(other.file_, nullptr)) {}

ScopedFile::~ScopedFile() {
  // When this fails, an earlier error is being told, or the file is in nobody's way.
  if (file_) static_cast<void>(fs_->remove(file_->path()));
}

Result<void> ScopedFile::keep_as(const std::string& path, bool replace) {
  OBD_TRY(replace ? fs_->rename(file_->path(), path) : fs_->rename_new(file_->path(), path));
  file_ = nullptr;
  return fs_->sync_directory(directory_of(path));
}

}  // namespace obd::tool
