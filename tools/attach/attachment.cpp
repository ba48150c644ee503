#include "tools/attach/attachment.h"

#include <array>
#include <cerrno>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

namespace obd::attach {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::pair<std::string_view, Phase>, 3> kPhases = {
    {{"attaching", Phase::attaching},
     {"attached", Phase::attached},
     {"detaching", Phase::detaching}}};
constexpr std::array<std::pair<std::string_view, Backend>, 2> kBackends = {
    {{"nbd", Backend::nbd}, {"fuse", Backend::fuse}}};

template <typename Table, typename Value>
std::string_view name_in(const Table& table, Value value) {
  for (const auto& [name, named] : table) {
    if (named == value) return name;
  }
  return "";
}

template <typename Table>
auto value_in(const Table& table, std::string_view name) -> decltype(table[0].second) {
  for (const auto& [known, value] : table) {
    if (known == name) return value;
  }
  throw nlohmann::json::other_error::create(500, fmt::format("{} is unknown", name), nullptr);
}

// Runs what reads values out of JSON; whatever does not fit is one sentence.
template <typename Value, typename Read>
Result<Value> parse(const std::string& path, const std::string& text, Read&& read) {
  try {
    return read(nlohmann::json::parse(text));
  } catch (const nlohmann::json::exception& error) {
    return fail(EINVAL, "{}: cannot be understood: {}", path, error.what());
  }
}

// Paths may hold any bytes; JSON holds UTF-8. Those which are not are refused when written, where
// the caller can still be told.
std::string dump(const Json& json) { return json.dump(2) + "\n"; }

}  // namespace

std::string_view to_text(Backend backend) { return name_in(kBackends, backend); }
std::string_view to_text(Phase phase) { return name_in(kPhases, phase); }

std::string to_json(const Attachment& attachment) {
  Json mounts = Json::array();
  for (const MountPoint& mount : attachment.mounts) {
    mounts.push_back(
        {{"directory", mount.directory}, {"fstype", mount.fstype}, {"options", mount.options}});
  }
  return dump({{"image", attachment.image},
               {"phase", to_text(attachment.phase)},
               {"backend", to_text(attachment.backend)},
               {"readOnly", attachment.read_only},
               {"connections", attachment.connections},
               {"cacheSize", attachment.server.cache_size},
               {"maxUpperSize", attachment.server.max_upper_size},
               {"detectZeroes", attachment.server.detect_zeroes},
               {"gc", attachment.server.gc},
               {"gcRate", attachment.server.gc_rate},
               {"deadTimeout", attachment.dead_timeout},
               {"requestTimeout", attachment.request_timeout},
               {"plugin", attachment.plugin},
               {"identifier", attachment.identifier},
               {"bootId", attachment.boot_id},
               {"device", attachment.device},
               {"held", attachment.held},
               {"mounts", std::move(mounts)}});
}

Result<Attachment> parse_attachment(const std::string& path, const std::string& text) {
  auto parsed = parse<Attachment>(path, text, [](const nlohmann::json& json) {
    Attachment attachment;
    json.at("image").get_to(attachment.image);
    attachment.phase = value_in(kPhases, json.at("phase").get<std::string>());
    attachment.backend = value_in(kBackends, json.at("backend").get<std::string>());
    json.at("readOnly").get_to(attachment.read_only);
    json.at("connections").get_to(attachment.connections);
    ServerOptions& server = attachment.server;
    json.at("cacheSize").get_to(server.cache_size);
    // An earlier version that attached it had none of these.
    server.max_upper_size = json.value("maxUpperSize", server.max_upper_size);
    server.detect_zeroes = json.value("detectZeroes", server.detect_zeroes);
    server.gc = json.value("gc", server.gc);
    server.gc_rate = json.value("gcRate", server.gc_rate);
    json.at("deadTimeout").get_to(attachment.dead_timeout);
    json.at("requestTimeout").get_to(attachment.request_timeout);
    json.at("plugin").get_to(attachment.plugin);
    json.at("identifier").get_to(attachment.identifier);
    json.at("bootId").get_to(attachment.boot_id);
    json.at("device").get_to(attachment.device);
    json.at("held").get_to(attachment.held);
    for (const auto& mount : json.at("mounts")) {
      attachment.mounts.push_back({mount.at("directory").get<std::string>(),
                                   mount.at("fstype").get<std::string>(),
                                   mount.at("options").get<std::vector<std::string>>()});
    }
    return attachment;
  });
  if (!parsed) {
    parsed.error().message +=
        "; what it told of may still be attached, and is left alone until the file is mended";
  }
  return parsed;
}

std::string to_json(const ServerStatus& status) {
  // What a server said last may be anything.
  return Json{{"restarts", status.restarts},
              {"givenUp", status.given_up},
              {"lastWords", status.last_words}}
             .dump(2, ' ', false, Json::error_handler_t::replace) +
         "\n";
}

Result<ServerStatus> parse_server_status(const std::string& path, const std::string& text) {
  return parse<ServerStatus>(path, text, [](const nlohmann::json& json) {
    ServerStatus status;
    json.at("restarts").get_to(status.restarts);
    json.at("givenUp").get_to(status.given_up);
    json.at("lastWords").get_to(status.last_words);
    return status;
  });
}

}  // namespace obd::attach
