// overlaybd-merge: one sealed layer from all of an image.

#include "core/image/merge.h"

#include "tools/compat/compat.h"
#include "tools/obd/common.h"
#include "tools/obd/progress.h"

namespace obd::compat {
namespace {

struct MergeArguments {
  bool compress = true;
  std::string config;
  std::string output;
};

Result<int> merge(const MergeArguments& arguments) {
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(const ImageConfig config, load_config(fs, arguments.config));
  LayerOutput output{.path = arguments.output};
  // An existing output is replaced without being asked for, once the new one is whole.
  output.options.overwrite = true;
  output.uuid = Uuid();
  if (arguments.compress) {
    OBD_TRY_ASSIGN(output.options.blob, compressed({}));
  }
  OBD_TRY(tool::refuse_taken(fs, output.path, true));
  OBD_TRY_ASSIGN(const LayerInfo layer,
                 merge_layers(fs, config, {}, output, tool::progress_lines()));
  for (const std::string& sentence : layer.warnings) tool::warn(sentence);
  return 0;
}

int main(int argc, char** argv) {
  CLI::App app("Makes one sealed layer from all of an image", "overlaybd-merge");
  MergeArguments arguments;
  bool tar = false;
  std::string service_config;
  app.add_option("--service_config_path", service_config, "Accepted; there is no service");
  app.add_flag("--compress", arguments.compress,
               "Compress it as a ZFile, lz4 in blocks of 4 KiB (default: true)");
  app.add_flag("-t", tar, "Accepted, without effect");
  add_verbose(app);
  add_refused_upload(app);
  app.add_option("image_config_path", arguments.config, "The image's config.v1.json")->required();
  app.add_option("output", arguments.output, "The layer to make")->required();
  app.footer(
      "Example:\n"
      "  overlaybd-merge config.v1.json merged.commit --compress=false");
  return run(app, argc, argv, kFailure, [&] { return merge(arguments); });
}

}  // namespace
}  // namespace obd::compat

int main(int argc, char** argv) { return obd::compat::main(argc, argv); }
