// A file in the making: under a temporary name beside its target until it is whole, and removed
// when its owner goes away before that, whatever the reason.
//
// Ownership: owns the open file and its temporary name. Thread-safety: none; the file itself may be
// used from many threads.

#pragma once

#include <memory>
#include <string>

#include "core/io/file.h"

namespace obd {

class OutputFile {
 public:
  // Makes an empty file, open for reading and writing, whose name starts with `target` and which
  // nobody else has. Without `overwrite`, a target that exists is EEXIST, now and in finish().
  static Result<OutputFile> create(FileSystem& fs, const std::string& target, mode_t mode,
                                   bool overwrite);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  [[nodiscard]] File& file() { return *file_; }

  // Syncs the file, gives it its target's name and makes that stable. A crash leaves the whole new
  // file under the name, or what was there before.
  Result<void> finish();

 private:
  OutputFile(FileSystem& fs, std::string target, bool overwrite)
      : fs_(&fs), target_(std::move(target)), overwrite_(overwrite) {}

  FileSystem* fs_;
  std::string target_;
  bool overwrite_;
  std::unique_ptr<File> file_;  // null: moved from, or finished
};

}  // namespace obd
