// obd check: verifies every structure of an image or a layer.

#include <memory>

#include "tools/obd/check_report.h"
#include "tools/obd/command.h"
#include "tools/obd/common.h"

namespace obd::tool {
namespace {

struct CheckOptions {
  std::string target;
  bool json = false;
  bool force_share = false;
};

Result<int> check(const CheckOptions& options) {
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(const std::string path, find_path(fs, options.target));
  OBD_TRY_ASSIGN(const CheckReport report, check_image_or_layer(fs, path, options.force_share));
  if (options.json) {
    fmt::print("{}\n", json_text(check_json(path, report), 2));
  } else {
    print_findings(report);
    fmt::print("{}: {}\n", path, verdict(report));
  }
  return status_of(report);
}

}  // namespace

void add_check(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<CheckOptions>();
  CLI::App* command = app.add_subcommand("check", "Verifies every structure; changes nothing");
  command
      ->add_option("IMAGE|LAYER", options->target,
                   "config.v1.json, the folder that holds it, or a sealed layer's file")
      ->required();
  command->add_flag("--json", options->json, "Print JSON");
  add_force_share(*command, options->force_share);
  command->footer(
      "Exit status: 0 clean (there may be warnings), 1 something is wrong, 2 it could\n"
      "not look.\n\n"
      "Examples:\n"
      "  obd check disk\n"
      "  obd check base.lsmt --json");
  command->callback([options, &chosen] {
    chosen = [options] { return could_not_look_if_failed(check(*options)); };
  });
}

}  // namespace obd::tool
