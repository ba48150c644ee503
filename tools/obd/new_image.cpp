#include "tools/obd/new_image.h"

#include <cerrno>
#include <filesystem>

#include "tools/obd/common.h"

namespace obd::tool {

NewImageFiles::~NewImageFiles() {
  if (kept_) return;
  // The error that led here is being told; what cannot be removed stays.
  for (const std::string& file : files_) static_cast<void>(fs_.remove(file));
  std::error_code ignored;
  if (!directory_.empty()) std::filesystem::remove(directory_, ignored);
}

Result<std::string> prepare_directory(FileSystem& fs, const std::string& path,
                                      NewImageFiles& made) {
  std::error_code code;
  if (std::filesystem::create_directory(path, code)) {
    made.made_directory(path);
  } else if (code == std::errc::no_such_file_or_directory) {
    return fail(ENOENT, "{}: the folder that it should be in does not exist", path);
  } else if (code) {
    return fail_errno(code.value(), "{}: cannot make the folder", path);
  }
  OBD_TRY_ASSIGN(std::string directory, fs.canonical(path));
  OBD_TRY_ASSIGN(const bool has_config, fs.exists(path_in(directory, kConfigName)));
  if (has_config) {
    return fail(EEXIST, "{}: holds {} already: choose another folder", path, kConfigName);
  }
  for (const std::string_view name : {kUpperDataName, kUpperIndexName}) {
    OBD_TRY_ASSIGN(const bool taken, fs.exists(path_in(directory, name)));
    if (taken) {
      return fail(EEXIST,
                  "{}: holds {} but no {}: choose another folder, or remove it if a command that "
                  "was killed has left it",
                  path, name, kConfigName);
    }
  }
  return directory;
}

std::string path_in(const std::string& directory, std::string_view name) {
  return (std::filesystem::path(directory) / name).string();
}

}  // namespace obd::tool
