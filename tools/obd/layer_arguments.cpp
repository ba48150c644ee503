#include "tools/obd/layer_arguments.h"

#include <cerrno>

#include "tools/obd/common.h"
#include "tools/obd/size_text.h"

namespace obd::tool {

void add_layer_arguments(CLI::App& command, LayerArguments& arguments,
                         const std::string& default_uuid, const std::string& default_parent) {
  command.add_option("-o,--output", arguments.path, "The layer to make")
      ->required()
      ->type_name("LAYER");
  command.add_option("--uuid", arguments.uuid,
                     fmt::format("The layer's UUID (default: {})", default_uuid));
  command.add_option("--parent-uuid", arguments.parent_uuid,
                     fmt::format("UUID of the layer below it (default: {})", default_parent));
  command.add_option("-m,--message", arguments.message, "Text to keep in the layer");
  command.add_flag("-f,--force", arguments.force, "Replace an existing layer");
}

Result<LayerOutput> layer_output(FileSystem& fs, const LayerArguments& arguments) {
  if (arguments.message.size() > lsmt::kMaxTagSize) {
    return fail(EINVAL, "--message: has {} bytes, and a layer has room for {}",
                arguments.message.size(), lsmt::kMaxTagSize);
  }
  LayerOutput output{.path = arguments.path};
  output.options.user_tag = arguments.message;
  output.options.overwrite = arguments.force;
  if (!arguments.uuid.empty()) {
    OBD_TRY_ASSIGN(output.uuid, parse_uuid_option("--uuid", arguments.uuid, Uuid()));
  }
  if (!arguments.parent_uuid.empty()) {
    OBD_TRY_ASSIGN(output.parent_uuid,
                   parse_uuid_option("--parent-uuid", arguments.parent_uuid, Uuid()));
  }
  OBD_TRY(refuse_taken(fs, arguments.path, arguments.force));
  return output;
}

std::string layer_summary(const LayerInfo& layer) {
  std::string text = fmt::format("disk of {}, {} of data", human_size(layer.virtual_size),
                                 human_size(layer.data_bytes));
  if (layer.zero_bytes != 0) text += fmt::format(", {} of zeros", human_size(layer.zero_bytes));
  return text;
}

}  // namespace obd::tool
