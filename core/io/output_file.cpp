#include "core/io/output_file.h"

#include <cerrno>
#include <utility>

#include "core/base/uuid.h"

namespace obd {

Result<OutputFile> OutputFile::create(FileSystem& fs, const std::string& target, mode_t mode,
                                      bool overwrite) {
  OBD_TRY_ASSIGN(const bool taken, fs.exists(target));
  if (taken && !overwrite) {
    return fail(EEXIST, "{}: the file exists; remove it or ask for it to be overwritten", target);
  }
  // A symbolic link goes on pointing at what it did, and that is replaced.
  std::string real = target;
  if (taken) {
    OBD_TRY_ASSIGN(real, fs.canonical(target));
  }
  OutputFile output(fs, real, overwrite);
  // Two writers of one target must not share a file: the last to finish would rename half of it.
  auto file = fs.create(real + ".tmp-" + Uuid::random().text().substr(0, 8), mode);
  if (!file) {
    return fail_errno(file.error().code, "{}: cannot make a file in the folder {}", target,
                      directory_of(real));
  }
  output.file_ = std::move(*file);
  return output;
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : fs_(other.fs_),
      target_(std::move(other.target_)),
      overwrite_(other.overwrite_),
      file_(std::exchange(other.file_, nullptr)) {}

OutputFile::~OutputFile() {
  // When this fails, an earlier error is being told, or the file is in nobody's way.
  if (file_) static_cast<void>(fs_->remove(file_->path()));
}

Result<void> OutputFile::finish() {
  OBD_TRY(file_->sync());
  OBD_TRY(overwrite_ ? fs_->rename(file_->path(), target_)
                     : fs_->rename_new(file_->path(), target_));
  file_ = nullptr;
  return fs_->sync_directory(directory_of(target_));
}

}  // namespace obd
