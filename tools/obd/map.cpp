// obd map: the runs of a disk and where their bytes are, in the shape of `qemu-img map`.

#include <memory>
#include <optional>

#include "tools/obd/command.h"
#include "tools/obd/common.h"

namespace obd::tool {
namespace {

struct MapOptions {
  std::string target;
  bool json = false;
  bool force_share = false;
};

// Number of layers above the one that holds the run; a run that none holds was looked for in all.
size_t depth_of(const ImageExtent& extent, size_t layer_count) {
  if (extent.kind == ExtentKind::hole) return layer_count - 1;
  return layer_count - 1 - extent.layer;
}

// Where the run's bytes stand in the layer's file; nowhere, if they are compressed.
std::optional<uint64_t> file_offset(const ImageExtent& extent, const LayerInfo& layer) {
  if (!layer.container) return extent.physical;
  if (layer.container->compression != Compression::none) return std::nullopt;
  return layer.container->offset + extent.physical;
}

Result<void> print_json(const Image& image, const std::vector<LayerInfo>& layers) {
  // A row at a time: a disk can have millions.
  const char* separator = "[";
  OBD_TRY(image.extents(0, image.size(), [&](const ImageExtent& extent) {
    const bool data = extent.kind == ExtentKind::data;
    Json row = {{"start", extent.offset},
                {"length", extent.length},
                {"depth", depth_of(extent, layers.size())},
                {"present", extent.kind != ExtentKind::hole},
                {"zero", !data},
                {"data", data}};
    if (data) {
      const LayerInfo& layer = layers[extent.layer];
      const auto offset = file_offset(extent, layer);
      row["compressed"] = !offset;
      if (offset) row["offset"] = *offset;
      row["filename"] = layer.path;
    }
    fmt::print("{}{}", separator, json_text(row, -1));
    separator = ",\n";
    return true;
  }));
  fmt::print("{}]\n", image.size() == 0 ? "[" : "");
  return {};
}

Result<void> print_human(const Image& image, const std::vector<LayerInfo>& layers) {
  fmt::print("{:<18}  {:<18}  {:<5}  {:<18}  {}\n", "Start", "Length", "Depth", "Offset", "File");
  return image.extents(0, image.size(), [&](const ImageExtent& extent) {
    if (extent.kind == ExtentKind::data) {
      const LayerInfo& layer = layers[extent.layer];
      const auto offset = file_offset(extent, layer);
      fmt::print("{:<#18x}  {:<#18x}  {:<5}  {:<18}  {}\n", extent.offset, extent.length,
                 depth_of(extent, layers.size()),
                 offset ? fmt::format("{:#x}", *offset) : "compressed", layer.path);
    }
    return true;
  });
}

Result<int> run_map(const MapOptions& options) {
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(const Target target, find_target(fs, options.target));
  auto opened = open_to_look(fs, target, options.force_share);
  if (!opened) return std::unexpected<Error>(with_force_share_hint(opened.error()));
  Image& image = **opened;
  OBD_TRY_ASSIGN(const auto layers, image.layers());
  OBD_TRY(options.json ? print_json(image, layers) : print_human(image, layers));
  OBD_TRY(image.close());
  return kExitSuccess;
}

}  // namespace

void add_map(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<MapOptions>();
  CLI::App* command = app.add_subcommand("map", "Shows which layer holds each part of the disk");
  command
      ->add_option("IMAGE|LAYER", options->target,
                   "config.v1.json, the folder that holds it, or a sealed layer's file")
      ->required();
  command->add_flag("--json", options->json, "Print every run as JSON, zeros and holes too");
  add_force_share(*command, options->force_share);
  command->footer(
      "Depth 0 is the topmost layer. Without --json only the runs that hold data are\n"
      "printed; all else reads as zeros.\n\n"
      "Examples:\n"
      "  obd map disk\n"
      "  obd map disk --json | jq '[.[] | select(.depth == 0 and .data)] | length'");
  command->callback([options, &chosen] { chosen = [options] { return run_map(*options); }; });
}

}  // namespace obd::tool
