// obd clone: a second image with the same disk, sharing every layer.

#include "core/image/clone.h"

#include <memory>

#include "tools/obd/command.h"
#include "tools/obd/common.h"
#include "tools/obd/new_image.h"
#include "tools/obd/size_text.h"

namespace obd::tool {
namespace {

struct CloneOptions {
  std::string image;
  std::string directory;
  bool json = false;
};

Result<int> run_clone(const CloneOptions& options) {
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(const Target source, find_image(fs, options.image));
  NewImageFiles made(fs);
  OBD_TRY_ASSIGN(const std::string directory, prepare_directory(fs, options.directory, made));
  const std::string path = path_in(directory, kConfigName);
  OBD_TRY_ASSIGN(const CloneReport done, clone_image(fs, source.path, path));
  made.keep();
  OBD_TRY(fs.sync_directory(directory_of(directory)));
  if (options.json) {
    Json json = {{"image", source.path},
                 {"clone", path},
                 {"virtual_size", done.size},
                 {"lowers", done.lowers}};
    json["sealed"] = done.sealed.empty() ? Json(nullptr) : Json(done.sealed);
    json["warnings"] = done.warnings;
    fmt::print("{}\n", json_text(json, 2));
    return kExitSuccess;
  }
  for (const std::string& sentence : done.warnings) warn(sentence);
  if (!done.sealed.empty()) {
    fmt::print("sealed {}, a lower of both images now\n", done.sealed);
  }
  fmt::print("created {}: disk of {}, {}\n", path, human_size(done.size),
             counted(done.lowers, "lower"));
  fmt::print("serve it:  nbdkit overlaybd {}\n", shell_quoted(path));
  return kExitSuccess;
}

}  // namespace

void add_clone(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<CloneOptions>();
  CLI::App* command =
      app.add_subcommand("clone", "Makes a second image that shares every layer with the first");
  command->add_option("IMAGE", options->image, "config.v1.json, or the folder that holds it")
      ->required();
  command
      ->add_option("DIR", options->directory, "The new image's folder; made when it does not exist")
      ->required();
  command->add_flag("--json", options->json, "Print JSON, sizes in bytes");
  command->footer(
      "What was written to the image becomes a sealed layer of both, in place; each goes on\n"
      "with an empty writable layer of its own. An image that nothing was written to stays\n"
      "as it is. No data is copied. No server may have the image open.\n\n"
      "Examples:\n"
      "  obd clone disk experiment\n"
      "  obd clone golden/config.v1.json vm7");
  command->callback([options, &chosen] { chosen = [options] { return run_clone(*options); }; });
}

}  // namespace obd::tool
