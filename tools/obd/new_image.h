// The folder of a new image, and getting rid of it when making the image fails.
//
// Thread-safety: none.

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/io/file.h"

namespace obd::tool {

// Removes what was made for a new image, unless it is kept.
class NewImageFiles {
 public:
  explicit NewImageFiles(FileSystem& fs) : fs_(fs) {}
  ~NewImageFiles();
  NewImageFiles(const NewImageFiles&) = delete;
  NewImageFiles& operator=(const NewImageFiles&) = delete;

  void made_directory(std::string path) { directory_ = std::move(path); }
  void made_file(std::string path) { files_.push_back(std::move(path)); }
  void keep() { kept_ = true; }

 private:
  FileSystem& fs_;
  std::vector<std::string> files_;
  std::string directory_;  // empty: it was there before
  bool kept_ = false;
};

// Makes the folder, or makes sure that none of an image's files is in it; returns its absolute
// path.
Result<std::string> prepare_directory(FileSystem& fs, const std::string& path, NewImageFiles& made);

std::string path_in(const std::string& directory, std::string_view name);

}  // namespace obd::tool
