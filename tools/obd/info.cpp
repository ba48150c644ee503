// obd info: what an image or a sealed layer is made of.

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>

#include "tools/obd/command.h"
#include "tools/obd/common.h"
#include "tools/obd/layer_json.h"
#include "tools/obd/size_text.h"

namespace obd::tool {
namespace {

struct InfoOptions {
  std::string target;
  bool json = false;
  bool force_share = false;
};

void print_json(const Target& target, const Image& image, const std::vector<LayerInfo>& layers) {
  Json json = {{"kind", target.is_image ? "image" : "layer"},
               {"path", target.path},
               {"virtual_size", image.size()},
               {"lowers", target.config.lowers.size()}};
  json["upper"] = target.config.upper ? Json(layers.back().kind) : Json(nullptr);
  json["layers"] = Json::array();
  for (const LayerInfo& layer : layers) json["layers"].push_back(layer_json(layer));
  fmt::print("{}\n", json_text(json, 2));
}

using Row = std::array<std::string, 8>;

// Columns aligned, numbers to the right; the last column, the path, is as long as it is.
void print_table(const std::vector<Row>& rows) {
  std::array<size_t, std::tuple_size_v<Row>> widths{};
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const Row& row : rows) {
    std::string line = fmt::format("  {:>{}}  {:<{}}", row[0], widths[0], row[1], widths[1]);
    for (size_t i = 2; i + 1 < row.size(); ++i) {
      line += fmt::format("  {:>{}}", row[i], widths[i]);
    }
    fmt::print("{}  {}\n", line, row.back());
  }
}

std::string upper_text(const Target& target, const std::vector<LayerInfo>& layers) {
  if (!target.is_image) return "";
  if (!target.config.upper) return "none: the image is read-only";
  return layers.back().kind;
}

void print_container(const Container& container) {
  fmt::print("  {:<12}{}\n", "container", to_text(container));
  if (container.compression == Compression::none) return;
  fmt::print("  {:<12}{}, {}{}\n", "", counted(container.blocks, "block"),
             human_size(container.compressed_size),
             container.checksums ? "" : ", without checksums");
}

void print_human(const Target& target, const Image& image, const std::vector<LayerInfo>& layers) {
  const uint64_t allocated =
      std::accumulate(layers.begin(), layers.end(), uint64_t{0},
                      [](uint64_t sum, const LayerInfo& l) { return sum + l.allocated_bytes; });
  fmt::print("{:<12}{}\n", target.is_image ? "image" : "layer", target.path);
  fmt::print("{:<12}{}\n", "disk size", exact_size(image.size()));
  if (target.is_image) {
    fmt::print("{:<12}{}\n", "lowers", target.config.lowers.size());
    fmt::print("{:<12}{}\n", "upper", upper_text(target, layers));
  }
  fmt::print("{:<12}{}\n", "allocated", exact_size(allocated));

  std::vector<Row> rows = {{"#", "kind", "extents", "live", "zero", "dead", "allocated", "file"}};
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerInfo& layer = layers[i];
    rows.push_back({std::to_string(i), layer.kind, std::to_string(layer.extents),
                    human_size(layer.data_bytes), human_size(layer.zero_bytes),
                    human_size(layer.dead_bytes), human_size(layer.allocated_bytes), layer.path});
  }
  fmt::print("\n{}:\n", layers.size() > 1 ? "layers, the bottom one first" : "layers");
  print_table(rows);

  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerInfo& layer = layers[i];
    fmt::print("\nlayer {}\n", i);
    if (layer.container) print_container(*layer.container);
    fmt::print("  {:<12}{}\n", "uuid", uuid_text(layer.uuid));
    fmt::print("  {:<12}{}\n", "parent", uuid_text(layer.parent_uuid));
    fmt::print("  {:<12}{}\n", "disk size", exact_size(layer.virtual_size));
    if (!layer.user_tag.empty()) {
      fmt::print("  {:<12}{}\n", "message", printable(layer.user_tag));
    }
    if (!layer.index_path.empty()) {
      fmt::print("  {:<12}{}\n", "index log", layer.index_path);
      fmt::print("  {:<12}{}, {} dead\n", "", counted(layer.log_records, "record"),
                 layer.log_dead_records);
    }
  }
}

Result<int> run_info(const InfoOptions& options) {
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(const Target target, find_target(fs, options.target));
  auto opened = open_to_look(fs, target, options.force_share);
  if (!opened) return std::unexpected<Error>(with_force_share_hint(opened.error()));
  Image& image = **opened;
  OBD_TRY_ASSIGN(const auto layers, image.layers());
  if (options.json) {
    print_json(target, image, layers);
  } else {
    print_human(target, image, layers);
    for (const LayerInfo& layer : layers) {
      for (const std::string& sentence : layer.warnings) warn(sentence);
    }
  }
  OBD_TRY(image.close());
  return kExitSuccess;
}

}  // namespace

void add_info(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<InfoOptions>();
  CLI::App* command = app.add_subcommand("info", "Shows what an image or a layer is made of");
  command
      ->add_option("IMAGE|LAYER", options->target,
                   "config.v1.json, the folder that holds it, or a sealed layer's file")
      ->required();
  command->add_flag("--json", options->json, "Print JSON, sizes in bytes");
  add_force_share(*command, options->force_share);
  command->footer(
      "Sizes of a layer: live is data that its index names, zero what its zero extents\n"
      "cover, dead what lies in its file and nothing names, allocated what the host\n"
      "has set aside.\n\n"
      "Examples:\n"
      "  obd info disk\n"
      "  obd info base.lsmt --json\n"
      "  obd info -U disk           although a server has it open");
  command->callback([options, &chosen] { chosen = [options] { return run_info(*options); }; });
}

}  // namespace obd::tool
