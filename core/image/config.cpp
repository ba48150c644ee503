#include "core/image/config.h"

#include <functional>
#include <nlohmann/json.hpp>

#include "core/format/foreign.h"
#include "core/format/lsmt.h"
#include "core/format/tar.h"
#include "core/format/zfile.h"

namespace obd {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxConfigSize = 16 * 1024 * 1024;
// What is read is written again by recursion.
constexpr int kMaxConfigDepth = 64;

// Keys of a lower or an upper that map it into another blob (turboOCI).
constexpr std::array<const char*, 4> kTurboOciKeys = {"targetFile", "targetDigest", "gzipIndex",
                                                      "target"};
// Where a lower given as a folder may lie in it, first match first.
constexpr std::array<const char*, 3> kLayerNames = {"overlaybd.commit", ".commit",
                                                    "overlaybd.sealed"};

constexpr const char* kLayerAdvice =
    "a layer is served by naming it in the lowers of a config (obd create DIR --lower)";

Result<void> refuse_other_files(std::span<const std::byte> start, const std::string& path) {
  if (const char* format = foreign_format(start)) {
    return fail(EINVAL,
                "{}: is {}, not an image's config: make it a raw disk (qemu-img convert -O raw) "
                "and that a layer (obd import)",
                path, format);
  }
  const bool is_lsmt = lsmt::has_magic(start);
  if (is_lsmt && start.size() >= lsmt::kHeaderSize) {
    const auto header = lsmt::decode_header(start.first<lsmt::kHeaderSize>(), path);
    if (header && header->is_header() && !header->is_sealed()) {
      return fail(EINVAL, "{}: is {}, not an image's config: name the config that lists it ({})",
                  path, header->is_data() ? "a layer's data file" : "the index of a writable layer",
                  kConfigName);
    }
  }
  if (is_lsmt || zfile::has_magic(start) || tar::looks_like_tar(start)) {
    return fail(EINVAL, "{}: is a layer, not an image's config; {}", path, kLayerAdvice);
  }
  return {};
}

Result<Json> parse(FileSystem& fs, const std::string& path) {
  const auto text = read_whole(fs, path, kMaxConfigSize);
  if (!text && text.error().code == EFBIG) {
    return fail(EINVAL, "{}: too large for an image's config, which has at most {} bytes; {}", path,
                kMaxConfigSize, kLayerAdvice);
  }
  if (!text) return std::unexpected<Error>(text.error());
  OBD_TRY(refuse_other_files(std::as_bytes(std::span(*text)), path));
  bool too_deep = false;
  const auto watch_depth = [&](int depth, Json::parse_event_t, const Json&) {
    too_deep = too_deep || depth > kMaxConfigDepth;
    return !too_deep;
  };
  try {
    Json json = Json::parse(*text, watch_depth);
    if (too_deep) {
      return fail(EINVAL, "{}: nested deeper than {} levels, which no image's config is", path,
                  kMaxConfigDepth);
    }
    if (!json.is_object()) {
      return fail(EINVAL,
                  "{}: the config is {}, not a JSON object, as {{\"lowers\": [...], \"upper\": "
                  "{{...}}}} is",
                  path, json.type_name());
    }
    return json;
  } catch (const Json::parse_error& error) {
    return fail(EINVAL, "{}: not an image's config: no valid JSON at byte {}", path, error.byte);
  } catch (const Json::out_of_range&) {
    return fail(EINVAL, "{}: not an image's config: a number in it is too large for JSON readers",
                path);
  }
}

// The text under a key; empty when the key is missing or null.
Result<std::string> text_of(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::string();
  if (!found->is_string()) {
    return fail(EINVAL, "{}: {} is {}, not a string", where, key, found->type_name());
  }
  std::string text = found->get<std::string>();
  if (text.find('\0') != std::string::npos) {
    return fail(EINVAL, "{}: {} contains a NUL character", where, key);
  }
  return text;
}

std::string resolve(const std::string& path, const std::string& config_path) {
  if (path.empty() || path.front() == '/') return path;
  return directory_of(config_path) + "/" + path;
}

Result<void> write_config(FileSystem& fs, const std::string& path, const Json& json) {
  std::string text;
  try {
    text = json.dump(2) + "\n";
  } catch (const Json::type_error&) {
    return fail(EINVAL, "{}: cannot hold a path that is not UTF-8: rename the file or its folder",
                path);
  }
  return replace_file(fs, path, text);
}

// Compares once more, as an editor that is not ours takes no lock.
Result<void> edit_config(FileSystem& fs, const ImageConfig& seen,
                         const std::function<Result<void>(Json&)>& change) {
  OBD_TRY(refuse_changed_config(fs, seen));
  OBD_TRY_ASSIGN(Json json, parse(fs, seen.path));
  OBD_TRY(change(json));
  return write_config(fs, seen.path, json);
}

Result<void> refuse_turbo_oci(const Json& layer, const std::string& where) {
  for (const char* key : kTurboOciKeys) {
    OBD_TRY_ASSIGN(const std::string value, text_of(layer, key, where));
    if (!value.empty()) {
      return fail(ENOTSUP, "{}: {} {} makes it a turboOCI layer, which this version cannot read",
                  where, key, value);
    }
  }
  return {};
}

Result<std::string> find_lower(FileSystem& fs, const Json& lower, const std::string& where,
                               const std::string& config_path) {
  if (!lower.is_object()) return fail(EINVAL, "{} is {}, not an object", where, lower.type_name());
  OBD_TRY(refuse_turbo_oci(lower, where));
  OBD_TRY_ASSIGN(const std::string file, text_of(lower, "file", where));
  OBD_TRY_ASSIGN(const std::string dir, text_of(lower, "dir", where));
  OBD_TRY_ASSIGN(const std::string digest, text_of(lower, "digest", where));
  if (!file.empty()) {
    const std::string path = resolve(file, config_path);
    OBD_TRY_ASSIGN(const bool there, fs.exists(path));
    if (there) return path;
  }
  if (!dir.empty()) {
    for (const char* name : kLayerNames) {
      const std::string path = resolve(dir, config_path) + "/" + name;
      OBD_TRY_ASSIGN(const bool there, fs.exists(path));
      if (there) return path;
    }
  }
  if (!digest.empty()) {
    return fail(ENOTSUP,
                "{}: the layer {} is not on this host, and this version cannot fetch it from "
                "a registry",
                where, digest);
  }
  if (file.empty() && dir.empty()) {
    return fail(EINVAL, "{}: neither file, dir nor digest says where the layer is", where);
  }
  return fail(ENOENT, "{}: there is no layer at {}", where,
              resolve(file.empty() ? dir : file, config_path));
}

// The topmost lower then holds a prefetch trace, no data.
bool has_acceleration_layer(const Json& json) {
  const auto found = json.find("accelerationLayer");
  return found != json.end() && found->is_boolean() && found->get<bool>();
}

Result<void> read_lowers(FileSystem& fs, const Json& json, ImageConfig& config) {
  const auto lowers = json.find("lowers");
  if (lowers == json.end() || lowers->is_null()) return {};
  if (!lowers->is_array()) {
    return fail(EINVAL, "{}: lowers is {}, not an array", config.path, lowers->type_name());
  }
  const auto acceleration = json.find("accelerationLayer");
  if (acceleration != json.end() && !acceleration->is_null() && !acceleration->is_boolean()) {
    return fail(EINVAL, "{}: accelerationLayer is {}, not true or false", config.path,
                acceleration->type_name());
  }
  size_t count = lowers->size();
  if (has_acceleration_layer(json) && count > 0) --count;
  for (size_t i = 0; i < count; ++i) {
    OBD_TRY_ASSIGN(
        std::string path,
        find_lower(fs, (*lowers)[i], fmt::format("{}: lowers[{}]", config.path, i), config.path));
    config.lowers.push_back(std::move(path));
  }
  return {};
}

Result<void> read_upper(const Json& json, ImageConfig& config) {
  const auto upper = json.find("upper");
  if (upper == json.end() || upper->is_null()) return {};
  const std::string where = config.path + ": upper";
  if (!upper->is_object())
    return fail(EINVAL, "{} is {}, not an object", where, upper->type_name());
  OBD_TRY(refuse_turbo_oci(*upper, where));
  OBD_TRY_ASSIGN(const std::string data, text_of(*upper, "data", where));
  OBD_TRY_ASSIGN(const std::string index, text_of(*upper, "index", where));
  if (data.empty() && index.empty()) return {};
  if (data.empty() || index.empty()) {
    config.warnings.push_back(
        fmt::format("{}: upper names no {} file, only {}, so the image has no upper and cannot be "
                    "written to",
                    config.path, data.empty() ? "data" : "index", data.empty() ? index : data));
    return {};
  }
  config.upper = UpperConfig{resolve(data, config.path), resolve(index, config.path)};
  return {};
}

}  // namespace

Result<std::string> config_at(FileSystem& fs, const std::string& path) {
  std::string inside = fmt::format("{}/{}", path, kConfigName);
  OBD_TRY_ASSIGN(const bool exists, fs.exists(inside));
  return exists ? inside : path;
}

Result<ImageConfig> load_config(FileSystem& fs, const std::string& path) {
  OBD_TRY_ASSIGN(const Json json, parse(fs, path));
  ImageConfig config;
  config.path = path;
  OBD_TRY_ASSIGN(const std::string result_file, text_of(json, "resultFile", path));
  config.result_file = resolve(result_file, path);
  OBD_TRY(read_lowers(fs, json, config));
  OBD_TRY(read_upper(json, config));
  return config;
}

Result<std::optional<std::string>> image_file_at(FileSystem& fs, const ImageConfig& config,
                                                 const std::string& path) {
  OBD_TRY_ASSIGN(const auto wanted_file, fs.open(path, Access::read_only));
  OBD_TRY_ASSIGN(const FileInfo wanted, wanted_file->info());
  std::vector<std::string> own = config.lowers;
  own.push_back(config.path);
  if (config.upper) own.insert(own.end(), {config.upper->data, config.upper->index});
  for (const std::string& candidate : own) {
    const auto file = fs.open(candidate, Access::read_only);
    if (!file) continue;  // whoever opens the image will say so
    OBD_TRY_ASSIGN(const FileInfo info, (*file)->info());
    if (info.device == wanted.device && info.inode == wanted.inode) return candidate;
  }
  return std::nullopt;
}

Result<void> refuse_image_file(FileSystem& fs, const ImageConfig& config, const std::string& path) {
  OBD_TRY_ASSIGN(const bool there, fs.exists(path));
  if (!there) return {};
  OBD_TRY_ASSIGN(const auto own, image_file_at(fs, config, path));
  if (!own) return {};
  return fail(EINVAL, "{}: is {}, a file of the image itself: choose another name", path, *own);
}

Result<std::string> name_in_config(FileSystem& fs, const std::string& file,
                                   const std::string& config_path) {
  OBD_TRY_ASSIGN(std::string real, fs.canonical(file));
  const std::string name = real.substr(real.rfind('/') + 1);
  const std::string beside = resolve(name, config_path);
  OBD_TRY_ASSIGN(const bool there, fs.exists(beside));
  if (!there) return real;
  OBD_TRY_ASSIGN(const std::string real_beside, fs.canonical(beside));
  return real_beside == real ? name : real;
}

std::string find_result_file(FileSystem& fs, const std::string& path) {
  const auto json = parse(fs, path);
  if (!json) return "";
  const auto result_file = text_of(*json, "resultFile", path);
  return result_file ? resolve(*result_file, path) : "";
}

Result<void> save_config(FileSystem& fs, const ImageConfig& config) {
  Json json;
  json["repoBlobUrl"] = "";
  json["lowers"] = Json::array();
  for (const std::string& lower : config.lowers) json["lowers"].push_back({{"file", lower}});
  if (config.upper) {
    json["upper"] = {{"data", config.upper->data}, {"index", config.upper->index}};
  }
  json["resultFile"] = config.result_file;
  return write_config(fs, config.path, json);
}

Result<void> refuse_changed_config(FileSystem& fs, const ImageConfig& seen) {
  OBD_TRY_ASSIGN(const ImageConfig now, load_config(fs, seen.path));
  if (now.lowers == seen.lowers && now.upper == seen.upper) return {};
  return fail(EBUSY, "{}: its layers have changed meanwhile; it was left as it is now", seen.path);
}

Error explain_missing_file(FileSystem& fs, const ImageConfig& seen, Error error) {
  if (error.code != ENOENT) return error;
  auto unchanged = refuse_changed_config(fs, seen);
  if (unchanged || unchanged.error().code != EBUSY) return error;
  return std::move(unchanged).error();
}

// The lock is on the file that will be replaced. Who comes second either does not get it, or has
// locked a file that is the config no longer.
Result<ConfigLock> ConfigLock::take(FileSystem& fs, const ImageConfig& seen) {
  auto file = fs.open(seen.path, Access::read_write);
  if (!file && file.error().code == EACCES) {
    return fail(EACCES,
                "{}: may not be written to, so it cannot be locked and replaced: change its mode "
                "(chmod u+w), or have its owner run this",
                seen.path);
  }
  if (!file) return std::unexpected<Error>(std::move(file).error());
  OBD_TRY((*file)->lock(LockMode::exclusive));
  OBD_TRY_ASSIGN(const FileInfo locked, (*file)->info());
  OBD_TRY_ASSIGN(const auto current, fs.open(seen.path, Access::read_only));
  OBD_TRY_ASSIGN(const FileInfo named, current->info());
  if (locked.device != named.device || locked.inode != named.inode) {
    return fail(EBUSY, "{}: has been replaced meanwhile; it was left as it is now", seen.path);
  }
  OBD_TRY(refuse_changed_config(fs, seen));
  return ConfigLock(fs, seen, std::move(*file));
}

Result<void> ConfigLock::turn_upper_into_lower(const std::optional<UpperConfig>& next) {
  return edit_config(*fs_, seen_, [&](Json& json) -> Result<void> {
    OBD_TRY_ASSIGN(const std::string data, text_of(json["upper"], "data", seen_.path + ": upper"));
    if (json["lowers"].is_null()) json["lowers"] = Json::array();
    Json& lowers = json["lowers"];
    // An acceleration layer stays the topmost entry, which is how it is told from the others.
    const bool accelerated = !lowers.empty() && has_acceleration_layer(json);
    lowers.insert(accelerated ? lowers.end() - 1 : lowers.end(), Json{{"file", data}});
    if (next) {
      json["upper"] = {{"data", next->data}, {"index", next->index}};
    } else {
      json.erase("upper");
    }
    return {};
  });
}

Result<void> ConfigLock::replace_lowers(LowerRange range, const std::string& lower) {
  return edit_config(*fs_, seen_, [&](Json& json) -> Result<void> {
    Json& lowers = json["lowers"];
    lowers[range.first] = Json{{"file", lower}};
    const auto first = lowers.begin() + static_cast<ptrdiff_t>(range.first);
    lowers.erase(first + 1, lowers.begin() + static_cast<ptrdiff_t>(range.last) + 1);
    return {};
  });
}

}  // namespace obd
