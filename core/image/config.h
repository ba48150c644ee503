// The image config file, `config.v1.json`: which layers make up an image.
//
// The format is overlaybd's (docs/format.md). Unknown keys are ignored; paths that
// are not absolute are taken from the config's folder.
//
// Thread-safety: plain values. Errors: EINVAL names the file, the key and the value.

#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/file.h"

namespace obd {

inline constexpr std::string_view kConfigName = "config.v1.json";

struct UpperConfig {
  std::string data;
  std::string index;
};

struct ImageConfig {
  std::string path;                 // of the config file itself
  std::vector<std::string> lowers;  // files, bottom first, as paths that can be opened
  std::optional<UpperConfig> upper;
  std::string result_file;  // where opening reports success or its error; empty: nowhere
};

// The file that a user's PATH names: a folder stands for the config.v1.json that it holds.
Result<std::string> config_at(FileSystem& fs, const std::string& path);

// Reads and checks a config. A lower given by `dir` is looked up there; remote and turboOCI layers
// are ENOTSUP, naming the layer.
Result<ImageConfig> load_config(FileSystem& fs, const std::string& path);

// Only the resultFile of a config that load_config refuses; empty when it cannot be told.
std::string find_result_file(FileSystem& fs, const std::string& path);

// Which file of the image, if any, `path` is another name of; `path` must exist.
Result<std::optional<std::string>> image_file_at(FileSystem& fs, const ImageConfig& config,
                                                 const std::string& path);

// Rewrites a config that load_config accepts: its upper's data file becomes the topmost lower. All
// other keys stay.
Result<void> turn_upper_into_lower(FileSystem& fs, const std::string& path);

// Replaces the config file (or makes it). Paths are written as given.
Result<void> save_config(FileSystem& fs, const ImageConfig& config);

}  // namespace obd
