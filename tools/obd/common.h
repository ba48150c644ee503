// What more than one subcommand needs: finding out what the user named, opening it, printing.
//
// Thread-safety: none.

#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>

#include "core/base/uuid.h"
#include "core/image/config.h"
#include "core/image/image.h"
#include "core/io/file.h"

namespace obd::tool {

using Json = nlohmann::ordered_json;

// What an IMAGE|LAYER argument means.
struct Target {
  std::string path;    // of the config file or of the layer
  bool is_image;       // false: a sealed layer
  ImageConfig config;  // of the image; for a layer one with it as its only lower
};

// A folder stands for the config.v1.json in it. A file that starts with '{' is a config.
Result<Target> find_target(FileSystem& fs, const std::string& argument);

// The path alone, without reading a config: for check, which has to tell what is wrong with it.
Result<std::string> find_path(FileSystem& fs, const std::string& argument);

// The same for arguments that have to be an image.
Result<Target> find_image(FileSystem& fs, const std::string& argument);

// Opens read-only; changes no file, not even the config's resultFile. With force_share, also an
// image that another process has open for writing.
Result<std::unique_ptr<Image>> open_to_look(FileSystem& fs, const Target& target, bool force_share);

// Refuses an output that exists, unless it is a regular file that `force` allows to replace, and
// one that is a link to nowhere.
Result<void> refuse_taken(FileSystem& fs, const std::string& path, bool force);

// The -U option of the commands that only look, and their error when it would have helped.
Error with_force_share_hint(Error error);
void add_force_share(CLI::App& command, bool& force_share);

// The value of an option that takes a UUID; `otherwise` when it was not given.
Result<Uuid> parse_uuid_option(std::string_view option, const std::string& text,
                               const Uuid& otherwise);

// For a command's callback: what its options come to, or, as CLI11 reports errors, that they were
// not understood.
template <typename T>
T or_usage_error(Result<T> parsed) {
  if (!parsed) throw CLI::ValidationError(parsed.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*parsed);
}

// Refuses what many tools take for standard output: files here appear when they are whole.
Result<void> refuse_stream(std::string_view option, const std::string& path);

// "none" for the nil UUID.
std::string uuid_text(const Uuid& uuid);

// Text from a file, with everything that could steer a terminal replaced by '?'.
std::string printable(std::string text);

// The argument as a shell reads it back.
std::string shell_quoted(const std::string& text);

// JSON text; bytes that are not UTF-8 are replaced (paths can hold any).
std::string json_text(const Json& json, int indent);

bool is_block_device(const std::string& path);

// The word with its number: "1 lower", "3 lowers".
std::string counted(uint64_t count, std::string_view word);

void warn(const std::string& sentence);

}  // namespace obd::tool
