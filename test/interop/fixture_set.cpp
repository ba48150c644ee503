#include "test/interop/fixture_set.h"

#include <nlohmann/json.hpp>
#include <sstream>

namespace obd::interop {

namespace fs = std::filesystem;

namespace {

const nlohmann::json& manifest() {
  static const nlohmann::json parsed =
      nlohmann::json::parse(read_text(fixture_folder() / "manifest.json"));
  return parsed;
}

const nlohmann::json& entry(const char* list, const std::string& name) {
  for (const nlohmann::json& candidate : manifest().at(list)) {
    if (candidate.at("name") == name) return candidate;
  }
  throw std::runtime_error("no fixture named " + name);
}

FixtureSet set_from(const std::string& name, const nlohmann::json& json) {
  return {.name = name,
          .virtual_size = json.at("virtual_size").get<uint64_t>(),
          .sha256_of_disk = json.at("sha256_of_virtual_disk").get<std::string>()};
}

// NAME.map: "size N", then lines "offset length"; NAME.packed: those extents' bytes in a row.
void rebuild_sparse(const fs::path& target, const std::string& map, const std::string& packed) {
  std::istringstream words(map);
  std::string size_word;
  uint64_t size = 0;
  words >> size_word >> size;
  write_text(target, "");
  fs::resize_file(target, size);
  uint64_t at = 0;
  for (uint64_t offset = 0, length = 0; words >> offset >> length; at += length) {
    patch(target, offset, std::string_view(packed).substr(at, length));
  }
  if (size_word != "size" || at != packed.size()) {
    throw std::runtime_error(target.string() + ".map does not fit its .packed file");
  }
}

}  // namespace

fs::path fixture_folder() { return fs::path(OBD_SOURCE_DIR) / "test" / "fixtures"; }

FixtureSet fixture_set(const std::string& name) { return set_from(name, entry("layers", name)); }

FixtureSet malformed_base() { return set_from("malformed_base", manifest().at("malformed_base")); }

std::vector<std::string> malformed_names() {
  std::vector<std::string> names;
  for (const nlohmann::json& fixture : manifest().at("malformed")) names.push_back(fixture["name"]);
  return names;
}

std::vector<std::string> malformed_files(const std::string& name) {
  std::vector<std::string> files = {entry("malformed", name).at("file")};
  for (const nlohmann::json& file : entry("malformed", name).at("files")) {
    const std::string path = file.at("path");
    if (path != files.front()) files.push_back(path);
  }
  return files;
}

bool upstream_refused(const std::string& name) {
  return entry("malformed", name).at("upstream").get<std::string>().starts_with("refused");
}

fs::path copy_set(const Workspace& workspace, const std::string& name) {
  const fs::path copy = workspace.path() / name;
  fs::create_directories(copy);
  for (const fs::directory_entry& file : fs::directory_iterator(fixture_folder() / name)) {
    const fs::path target = copy / file.path().filename();
    if (target.extension() == ".packed") continue;
    if (target.extension() != ".map") {
      write_text(target, read_text(file.path()));
      continue;
    }
    fs::path packed = file.path();
    packed.replace_extension(".packed");
    rebuild_sparse(fs::path(target).replace_extension(), read_text(file.path()), read_text(packed));
  }
  return copy;
}

void copy_files(const Workspace& workspace, const std::vector<std::string>& files) {
  for (const std::string& file : files) {
    write_text(workspace.path() / fs::path(file).filename(), read_text(fixture_folder() / file));
  }
}

}  // namespace obd::interop
