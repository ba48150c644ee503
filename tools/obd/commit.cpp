// obd commit: a new sealed layer from the writable layer of an image.

#include <memory>

#include "core/image/commit.h"
#include "tools/obd/command.h"
#include "tools/obd/common.h"
#include "tools/obd/layer_arguments.h"
#include "tools/obd/layer_json.h"
#include "tools/obd/progress.h"

namespace obd::tool {
namespace {

struct CommitOptions {
  std::string image;
  LayerArguments layer;
  LayerOutput output;  // what `layer` comes to
  bool json = false;
};

Result<int> run_commit(const CommitOptions& options) {
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(const Target target, find_image(fs, options.image));
  OBD_TRY(refuse_taken(fs, options.output.path, options.layer.force));
  OBD_TRY_ASSIGN(const LayerInfo layer,
                 commit_upper(fs, target.config, options.output, progress_lines()));
  if (options.json) {
    const Json json = {{"image", target.path}, {"layer", layer_json(layer)}};
    fmt::print("{}\n", json_text(json, 2));
    return kExitSuccess;
  }
  for (const std::string& sentence : layer.warnings) warn(sentence);
  fmt::print("created {}: {}\n", layer.path, layer_summary(layer));
  return kExitSuccess;
}

}  // namespace

void add_commit(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<CommitOptions>();
  CLI::App* command =
      app.add_subcommand("commit", "Makes a dense sealed layer from an image's writable one");
  command->add_option("IMAGE", options->image, "config.v1.json, or the folder that holds it")
      ->required();
  add_layer_arguments(*command, options->layer, "a random one", "the topmost lower's");
  command->add_flag("--json", options->json, "Print JSON, sizes in bytes");
  command->footer(
      "The layer holds what the image's writable layer holds, and nothing of its lowers:\n"
      "put it on top of them. Blocks of zeros take no space. The image stays as it is; no\n"
      "server may write to it meanwhile.\n\n"
      "Examples:\n"
      "  obd commit disk -o changes.lsmt\n"
      "  obd commit disk -o changes.lsmt -m 'release 13' --force\n"
      "  obd create next --lower base.lsmt changes.lsmt    the same disk");
  command->callback([options, &chosen] {
    options->output = or_usage_error(layer_output(options->layer));
    chosen = [options] { return run_commit(*options); };
  });
}

}  // namespace obd::tool
