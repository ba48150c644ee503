// obd seal: makes the writable layer of an image its topmost sealed one.

#include <memory>

#include "tools/obd/command.h"
#include "tools/obd/common.h"

namespace obd::tool {
namespace {

struct SealOptions {
  std::string image;
  bool json = false;
};

// What has no upper and names none by half has been sealed: whoever seals must be able to do that
// again, since he may have died before he could write down that it was done.
bool is_sealed(const ImageConfig& config) {
  return !config.upper && config.warnings.empty() && !config.lowers.empty();
}

Result<int> run_seal(const SealOptions& options) {
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(const Target target, find_image(fs, options.image));
  const bool was_sealed = is_sealed(target.config);
  std::vector<std::string> warnings;
  if (!was_sealed) {
    OBD_TRY_ASSIGN(warnings, seal_image(fs, target.path));
  }
  OBD_TRY_ASSIGN(const ImageConfig sealed, load_config(fs, target.path));
  if (sealed.lowers.empty()) return fail(EIO, "{}: has no layer after sealing", target.path);
  if (options.json) {
    const Json json = {{"image", target.path},
                       {"sealed", sealed.lowers.back()},
                       {"lowers", sealed.lowers.size()},
                       {"changed", !was_sealed},
                       {"warnings", warnings}};
    fmt::print("{}\n", json_text(json, 2));
    return kExitSuccess;
  }
  for (const std::string& sentence : warnings) warn(sentence);
  fmt::print("{} {}\n", was_sealed ? "was sealed already:" : "sealed", sealed.lowers.back());
  fmt::print("write on top of it:  obd create DIR --from {}\n", shell_quoted(target.path));
  return kExitSuccess;
}

}  // namespace

void add_seal(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<SealOptions>();
  CLI::App* command =
      app.add_subcommand("seal", "Makes the writable layer of an image immutable, in place");
  command->add_option("IMAGE", options->image, "config.v1.json, or the folder that holds it")
      ->required();
  command->add_flag("--json", options->json, "Print JSON");
  command->footer(
      "The layer's data file stays where it is and becomes the topmost lower, its index\n"
      "log is removed, and the config is rewritten. No server may have the image open.\n"
      "Running it again finishes a seal that was cut short, and changes nothing after that.\n\n"
      "Examples:\n"
      "  obd seal disk\n"
      "  obd create top --from disk/config.v1.json   to go on writing above it");
  command->callback([options, &chosen] { chosen = [options] { return run_seal(*options); }; });
}

}  // namespace obd::tool
