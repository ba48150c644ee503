#include "tools/obd/common.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "core/image/check.h"

namespace obd::tool {

Result<std::string> find_path(FileSystem& fs, const std::string& argument) {
  OBD_TRY_ASSIGN(std::string path, config_at(fs, argument));
  std::error_code ignored;  // the path is opened next, and that tells
  if (path == argument && std::filesystem::is_directory(argument, ignored)) {
    return fail(ENOENT, "{}: this folder holds no {}, so it is no image's folder", argument,
                kConfigName);
  }
  return path;
}

Result<Target> find_target(FileSystem& fs, const std::string& argument) {
  Target target;
  OBD_TRY_ASSIGN(target.path, find_path(fs, argument));
  OBD_TRY_ASSIGN(target.is_image, is_config_file(fs, target.path));
  if (target.is_image) {
    OBD_TRY_ASSIGN(target.config, load_config(fs, target.path));
  } else {
    target.config.path = target.path;
    target.config.lowers = {target.path};
  }
  return target;
}

Result<Target> find_image(FileSystem& fs, const std::string& argument) {
  OBD_TRY_ASSIGN(Target target, find_target(fs, argument));
  if (!target.is_image) {
    return fail(EINVAL, "{}: this is no image config (a JSON object), which is needed here",
                target.path);
  }
  return target;
}

Result<std::unique_ptr<Image>> open_to_look(FileSystem& fs, const Target& target,
                                            bool force_share) {
  auto image =
      Image::open(fs, target.config, {.access = Access::read_only, .force_share = force_share});
  if (image) return image;
  Error error = std::move(image).error();
  if (!target.is_image) {
    // An image's error tells which of its lowers is meant; here the user named it.
    if (auto layer = SealedLayer::open(fs, target.path); !layer) error = std::move(layer).error();
  }
  return std::unexpected<Error>(std::move(error));
}

Result<void> refuse_stream(std::string_view option, const std::string& path) {
  if (path != "-") return {};
  return fail(EINVAL, "{}: cannot be standard output: name a file (./- if that is its name)",
              option);
}

Result<void> refuse_taken(FileSystem& fs, const std::string& path, bool force) {
  OBD_TRY_ASSIGN(const bool taken, fs.exists(path));
  if (!taken) {
    std::error_code code;
    const auto target = std::filesystem::read_symlink(path, code);
    if (code) return {};
    return fail(ENOENT, "{}: is a symbolic link to {}, which does not exist: remove it", path,
                target.string());
  }
  if (!force) return fail(EEXIST, "{}: exists already: use -f to replace it", path);
  // Renaming over a device would replace its name, not its content: opening refuses what is no
  // regular file. A layer that is being served is locked, and its server would go on writing to a
  // file without a name.
  OBD_TRY_ASSIGN(const auto file, fs.open(path, Access::read_write));
  OBD_TRY(file->lock(LockMode::exclusive));
  // An index log is not locked itself, its data file is.
  std::array<std::byte, lsmt::kHeaderSize> start{};
  OBD_TRY_ASSIGN(const size_t got, file->read_at(start, 0));
  const auto header = lsmt::decode_header(start, path);
  if (got == start.size() && header && header->is_header() && !header->is_data()) {
    return fail(EINVAL,
                "{}: is the index of a writable layer, which is not replaced: choose another "
                "name",
                path);
  }
  return {};
}

Error with_force_share_hint(Error error) {
  if (error.code == EBUSY) error.message += "; -U looks at it all the same";
  return error;
}

void add_force_share(CLI::App& command, bool& force_share) {
  command.add_flag("-U,--force-share", force_share,
                   "Look although a server has the image open: what is read may be torn");
}

Result<Uuid> parse_uuid_option(std::string_view option, const std::string& text,
                               const Uuid& otherwise) {
  if (text.empty()) return otherwise;
  Result<Uuid> uuid = Uuid::parse(text);
  if (!uuid) return fail(uuid.error().code, "{}: {}", option, uuid.error().message);
  return uuid;
}

std::string uuid_text(const Uuid& uuid) { return uuid.is_nil() ? "none" : uuid.text(); }

std::string printable(std::string text) {
  std::ranges::replace_if(
      text, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; }, '?');
  return text;
}

std::string shell_quoted(const std::string& text) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+=:,@%";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

std::string json_text(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

bool is_block_device(const std::string& path) {
  std::error_code ignored;  // what cannot be looked at is opened next, and that tells
  return std::filesystem::is_block_file(path, ignored);
}

std::string counted(uint64_t count, std::string_view word) {
  return fmt::format("{} {}{}", count, word, count == 1 ? "" : "s");
}

void warn(const std::string& sentence) {
  fmt::print(stderr, "{}: warning: {}\n", program_invocation_short_name, sentence);
}

}  // namespace obd::tool
