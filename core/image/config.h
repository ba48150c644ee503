// The image config file, `config.v1.json`: which layers make up an image.
//
// The format is overlaybd's (docs/format.md). Unknown keys are ignored; paths that
// are not absolute are taken from the config's folder.
//
// Thread-safety: plain values. Errors: EINVAL names the file, the key and the value.

#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/file.h"

namespace obd {

// The names of a new image's own files in its folder; snapshotters expect them.
inline constexpr std::string_view kConfigName = "config.v1.json";
inline constexpr std::string_view kUpperDataName = "writable_data";
inline constexpr std::string_view kUpperIndexName = "writable_index";

struct UpperConfig {
  std::string data;
  std::string index;
  bool operator==(const UpperConfig&) const = default;
};

struct ImageConfig {
  std::string path;                 // of the config file itself
  std::vector<std::string> lowers;  // files, bottom first, as paths that can be opened
  std::optional<UpperConfig> upper;
  std::string result_file;            // where opening reports success or its error; empty: nowhere
  std::vector<std::string> warnings;  // what a person should know although the config is accepted
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

// Refuses to make a file where a file of the image is, whatever it is called there.
Result<void> refuse_image_file(FileSystem& fs, const ImageConfig& config, const std::string& path);

// How a file, which exists, is named in the config at `config_path`: by its name alone when it lies
// in the config's folder, so that the folder can be moved; else by its absolute path.
Result<std::string> name_in_config(FileSystem& fs, const std::string& file,
                                   const std::string& config_path);

// Whoever changes a config says what it has seen in it, as load_config gave it. When the lowers or
// the upper in the file are others by now, that is EBUSY and nothing changes.

// The comparison alone, for who has just locked the upper and wants to know what it holds.
Result<void> refuse_changed_config(FileSystem& fs, const ImageConfig& seen);
// Why the files that `seen` names do not open: the error, or, if one is missing because another
// command has changed the config since, that.
Error explain_missing_file(FileSystem& fs, const ImageConfig& seen, Error error);

// Lowers of an image, counted from 0, the bottom; both ends are included.
struct LowerRange {
  size_t first = 0;
  size_t last = 0;
};

// The right to change a config, once. While it is held, nobody else who goes through here gets it,
// so what has been seen stays true: take it before what cannot be undone.
// Errors of take(): EBUSY as above, and when somebody has the lock; EACCES when the file may not be
// written to.
class ConfigLock {
 public:
  static Result<ConfigLock> take(FileSystem& fs, const ImageConfig& seen);

  // The upper's data file becomes the topmost lower, and `next`, whose paths are written as given,
  // the upper. All other keys stay.
  Result<void> turn_upper_into_lower(const std::optional<UpperConfig>& next = std::nullopt);

  // One lower, written as given, takes the place of a range of them. All other keys stay.
  Result<void> replace_lowers(LowerRange range, const std::string& lower);

 private:
  ConfigLock(FileSystem& fs, ImageConfig seen, std::unique_ptr<File> file)
      : fs_(&fs), seen_(std::move(seen)), file_(std::move(file)) {}

  FileSystem* fs_;
  ImageConfig seen_;
  std::unique_ptr<File> file_;  // holds the lock
};

// Makes the config file of a new image. Paths are written as given.
Result<void> save_config(FileSystem& fs, const ImageConfig& config);

}  // namespace obd
