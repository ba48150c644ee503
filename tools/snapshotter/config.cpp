#include "tools/snapshotter/config.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/io/file.h"
#include "tools/obd/mkfs.h"
#include "tools/obd/size_text.h"

namespace obd::snapshotter {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxConfigSize = 1 << 20;
// sun_path of sockaddr_un, with its NUL.
constexpr size_t kMaxSocketPath = 107;

// Overlaybd-snapshotter has them, and here is nothing that they could change.
constexpr std::array kWithoutEffect = {"logReportCaller", "mirrorRegistry", "remapIDs",
                                       "runtimeType",     "tenant",         "turboFsType"};

std::unexpected<Error> wrong(const std::string& where, const Json& value, std::string_view wanted) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return fail(EINVAL, "{} is {}; it is to be {}", where, shown(text), wanted);
}

Result<void> read_bool(const std::string& where, const Json& value, bool& into) {
  if (!value.is_boolean()) return wrong(where, value, "true or false");
  into = value.get<bool>();
  return {};
}

Result<void> read_text(const std::string& where, const Json& value, std::string_view wanted,
                       std::string& into) {
  if (!value.is_string()) return wrong(where, value, wanted);
  into = value.get<std::string>();
  if (into.find('\0') != std::string::npos) return wrong(where, value, wanted);
  return {};
}

Result<void> read_path(const std::string& where, const Json& value, std::string& into) {
  constexpr std::string_view kWanted = "an absolute path";
  OBD_TRY(read_text(where, value, kWanted, into));
  if (!into.starts_with('/')) return wrong(where, value, kWanted);
  while (into.size() > 1 && into.ends_with('/')) into.pop_back();
  return {};
}

// One of several words.
template <typename T, size_t N>
Result<void> read_word(const std::string& where, const Json& value,
                       const std::array<std::pair<std::string_view, T>, N>& words, T& into) {
  std::string wanted;
  for (const auto& [word, meaning] : words) {
    if (value.is_string() && value.get_ref<const std::string&>() == word) {
      into = meaning;
      return {};
    }
    wanted += fmt::format("{}\"{}\"", wanted.empty() ? "one of " : ", ", word);
  }
  return wrong(where, value, wanted);
}

Result<void> read_level(const std::string& where, const Json& value, LogLevel& into) {
  static constexpr std::array<std::pair<std::string_view, LogLevel>, 7> kLevels = {
      {{"trace", LogLevel::debug},
       {"debug", LogLevel::debug},
       {"info", LogLevel::info},
       {"warn", LogLevel::warning},
       {"warning", LogLevel::warning},
       {"error", LogLevel::error},
       {"fatal", LogLevel::error}}};
  return read_word(where, value, kLevels, into);
}

Result<void> read_mode(const std::string& where, const Json& value, Mode& into) {
  static constexpr std::array<std::pair<std::string_view, Mode>, 3> kModes = {
      {{"overlayfs", Mode::overlayfs}, {"dir", Mode::dir}, {"dev", Mode::dev}}};
  return read_word(where, value, kModes, into);
}

Result<void> read_kind(const std::string& where, const Json& value, UpperKind& into) {
  static constexpr std::array<std::pair<std::string_view, UpperKind>, 2> kKinds = {
      {{"append", UpperKind::append}, {"sparse", UpperKind::sparse}}};
  return read_word(where, value, kKinds, into);
}

Result<void> read_fs_type(const std::string& where, const Json& value, std::string& into) {
  OBD_TRY(read_text(where, value, "a type of file system, as \"ext4\"", into));
  if (!tool::check_fstype(into)) return wrong(where, value, "a type of file system, as \"ext4\"");
  return {};
}

Result<void> read_quota(const std::string& where, const Json& value, uint64_t& into) {
  constexpr std::string_view kWanted = "a size, as \"20g\", or \"\" for none";
  std::string text;
  OBD_TRY(read_text(where, value, kWanted, text));
  if (text.empty()) return {};
  const auto size = parse_quota(text);
  if (!size) return wrong(where, value, kWanted);
  into = *size;
  return {};
}

Result<void> read_port(const std::string& where, const Json& value, uint16_t& into) {
  if (!value.is_number_integer() || value < 1 || value > 65535) {
    return wrong(where, value, "a number from 1 to 65535");
  }
  into = value.get<uint16_t>();
  return {};
}

using Reader = std::function<Result<void>(const std::string& where, const Json& value)>;

struct Key {
  std::string_view name;
  Reader read;
};

// Reads the keys that there are; null stands for a key that is not there.
Result<void> read_object(const std::string& where, const Json& json, const std::vector<Key>& keys,
                         std::vector<std::string>& warnings) {
  if (!json.is_object()) return wrong(where, json, "a JSON object");
  for (const auto& [name, value] : json.items()) {
    const std::string here = fmt::format("{}: {}", where, shown(name));
    const auto key = std::ranges::find(keys, name, &Key::name);
    if (key != keys.end()) {
      if (!value.is_null()) OBD_TRY(key->read(here, value));
    } else if (std::ranges::find(kWithoutEffect, name) != kWithoutEffect.end()) {
      warnings.push_back(here + " has no effect in this snapshotter");
    } else {
      warnings.push_back(here + " is no key that this snapshotter knows; it has no effect");
    }
  }
  return {};
}

Result<void> read_exporter(const std::string& where, const Json& json, Exporter& exporter,
                           std::vector<std::string>& warnings) {
  const std::vector<Key> keys = {
      {"enable", [&](const auto& here,
                     const Json& value) { return read_bool(here, value, exporter.enable); }},
      {"uriPrefix", [&](const auto& here,
                        const Json& value) { return read_path(here, value, exporter.uri_prefix); }},
      {"port",
       [&](const auto& here, const Json& value) { return read_port(here, value, exporter.port); }}};
  return read_object(where, json, keys, warnings);
}

Result<void> read_backend(const std::string& where, const Json& value, std::string& into) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kBackends = {
      {{"auto", "auto"}, {"nbd", "nbd"}, {"fuse", "fuse"}}};
  std::string_view chosen;
  OBD_TRY(read_word(where, value, kBackends, chosen));
  into = chosen;
  return {};
}

std::vector<Key> keys_of(Config& config) {
  // Reads into one member of the config.
  const auto into = [](auto read, auto& member) -> Reader {
    return [read, &member](const std::string& where, const Json& value) {
      return read(where, value, member);
    };
  };
  return {{"root", into(read_path, config.root)},
          {"address", into(read_path, config.address)},
          {"verbose", into(read_level, config.verbose)},
          {"rwMode", into(read_mode, config.mode)},
          {"writableLayerType", into(read_kind, config.writable_layer)},
          {"autoRemoveDev", into(read_bool, config.auto_remove_dev)},
          {"asyncRemove", into(read_bool, config.async_remove)},
          {"defaultFsType", into(read_fs_type, config.default_fs_type)},
          {"rootfsQuota", into(read_quota, config.rootfs_quota)},
          {"exporterConfig",
           [&config](const std::string& where, const Json& value) {
             return read_exporter(where, value, config.exporter, config.warnings);
           }},
          {"stateDir", into(read_path, config.state_dir)},
          {"backend", into(read_backend, config.backend)},
          {"plugin", into(read_path, config.plugin)}};
}

}  // namespace

std::string_view to_text(Mode mode) {
  switch (mode) {
    case Mode::overlayfs:
      return "overlayfs";
    case Mode::dir:
      return "dir";
    case Mode::dev:
      break;
  }
  return "dev";
}

std::optional<Mode> parse_mode(std::string_view text) {
  for (const Mode mode : {Mode::overlayfs, Mode::dir, Mode::dev}) {
    if (text == to_text(mode)) return mode;
  }
  return std::nullopt;
}

Result<uint64_t> parse_quota(std::string_view text) {
  // "20GB" is a habit; units are powers of 1024 with or without it.
  if (text.size() > 1 && (text.back() == 'b' || text.back() == 'B') &&
      !std::string_view("iI").contains(text[text.size() - 2])) {
    text.remove_suffix(1);
  }
  OBD_TRY_ASSIGN(const uint64_t size, tool::parse_size(text));
  if (size == 0) return fail(EINVAL, "a quota of 0 leaves room for nothing");
  return size;
}

Result<Config> parse_config(const std::string& path, const std::string& text) {
  Json json;
  try {
    json = Json::parse(text, nullptr, true, true);
  } catch (const Json::parse_error& error) {
    return fail(EINVAL, "{}: no valid JSON at byte {}", path, error.byte);
  } catch (const Json::exception& error) {
    return fail(EINVAL, "{}: {}", path, error.what());
  }
  Config config;
  OBD_TRY(read_object(path, json, keys_of(config), config.warnings));
  if (config.address.size() > kMaxSocketPath) {
    return fail(EINVAL, "{}: address is {} bytes long; a socket's path has at most {}", path,
                config.address.size(), kMaxSocketPath);
  }
  if (config.rootfs_quota != 0 && config.mode == Mode::overlayfs) {
    config.warnings.push_back(fmt::format(
        "{}: rootfsQuota has no effect on containers in rwMode overlayfs: a writable layer "
        "enforces it, which those of dir and dev have",
        path));
  }
  return config;
}

Result<Config> load_config_file(const std::string& path) {
  auto text = read_whole(posix_file_system(), path, kMaxConfigSize);
  if (text) return parse_config(path, *text);
  if (text.error().code == ENOENT && path == kDefaultConfigPath) return Config{};
  return std::unexpected(text.error());
}

}  // namespace obd::snapshotter
