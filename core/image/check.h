// Checks every structure of an image or of one sealed layer, and says what is wrong and what that
// means. Changes nothing.
//
// Errors: those of looking at all (no such file, no right to read it). What is found wrong is a
// Finding, not an error.

#pragma once

#include <string>
#include <vector>

#include "core/io/file.h"

namespace obd {

struct Finding {
  bool wrong = false;  // false: worth knowing, but everything is served right
  std::string text;
};

struct CheckReport {
  std::vector<Finding> findings;
  bool complete = true;  // false: a finding says what could not be looked at
  bool in_use = false;   // another process has the upper open; force_share would look at it
};

// `path` is a config file or a sealed layer, told apart by what is in it. `force_share` looks at
// an image that is in use; what it finds may be a moment between two states.
Result<CheckReport> check_image_or_layer(FileSystem& fs, const std::string& path, bool force_share);

// True when a file holds JSON (an object or, wrongly, an array) rather than a layer, as far as its
// first character tells.
Result<bool> is_config_file(FileSystem& fs, const std::string& path);

}  // namespace obd
