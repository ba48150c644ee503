// obd verify: reads every byte of an image or of layers, and checks it against what checksums there
// are.

#include <algorithm>
#include <memory>

#include "core/image/verify.h"
#include "tools/obd/check_report.h"
#include "tools/obd/command.h"
#include "tools/obd/common.h"
#include "tools/obd/interrupt.h"
#include "tools/obd/progress.h"
#include "tools/obd/size_text.h"

namespace obd::tool {
namespace {

struct VerifyArguments {
  std::vector<std::string> targets;
  bool json = false;
  VerifyOptions options;
};

Json report_json(const std::string& path, const VerifyReport& report) {
  Json json = check_json(path, report.check);
  json["layers"] = report.layers;
  json["bytes"] = report.bytes;
  json["checked_bytes"] = report.checked;
  json["bad_blocks"] = report.bad_blocks;
  return json;
}

void print_human(const std::string& path, const VerifyReport& report) {
  print_findings(report.check);
  const std::string checksums = report.checked == 0 ? "without checksums"
                                : report.checked == report.bytes
                                    ? "all of it against checksums"
                                    : human_size(report.checked) + " of it against checksums";
  fmt::print("{}: {}; read {} in {}, {}\n", path, verdict(report.check), human_size(report.bytes),
             counted(report.layers, "layer"), checksums);
}

// What cannot be looked at at all does not keep the others from being verified.
VerifyReport verify_one(FileSystem& fs, const VerifyOptions& options, std::string& path) {
  const auto look = [&]() -> Result<VerifyReport> {
    OBD_TRY_ASSIGN(path, find_path(fs, path));
    return verify_image_or_layer(fs, path, options, progress_lines());
  };
  auto report = look();
  if (report) return std::move(*report);
  VerifyReport failed;
  failed.check.complete = false;
  failed.check.findings.push_back({false, report.error().message});
  return failed;
}

Result<int> verify(const VerifyArguments& arguments) {
  FileSystem& fs = posix_file_system();
  int status = kExitSuccess;
  Json json = Json::array();
  for (const std::string& target : arguments.targets) {
    std::string path = target;
    const VerifyReport report = verify_one(fs, arguments.options, path);
    OBD_TRY(check_interrupt());
    if (arguments.json) {
      json.push_back(report_json(path, report));
    } else {
      print_human(path, report);
    }
    status = worse(status, status_of(report.check));
  }
  if (arguments.json) fmt::print("{}\n", json_text(json, 2));
  return status;
}

}  // namespace

void add_verify(CLI::App& app, Runner& chosen) {
  const auto arguments = std::make_shared<VerifyArguments>();
  CLI::App* command =
      app.add_subcommand("verify", "Reads everything and compares every checksum; changes nothing");
  command
      ->add_option("IMAGE|LAYER", arguments->targets,
                   "config.v1.json, the folder that holds it, or a sealed layer's file")
      ->required();
  command
      ->add_option("--threads", arguments->options.threads,
                   "How many read at a time (default: one a processor)")
      ->check(CLI::Range(1U, 1024U).description(""))
      ->type_name("N");
  command->add_flag("--json", arguments->json, "Print JSON, an array with an object for each");
  add_force_share(*command, arguments->options.force_share);
  command->footer(
      "Only compressed layers have checksums; of others it shows that they can be read.\n"
      "Exit status: 0 all right (there may be warnings), 1 something is wrong, 2 it could\n"
      "not look.\n\n"
      "Examples:\n"
      "  obd verify disk\n"
      "  obd verify layers/*.lsmt --json");
  command->callback([arguments, &chosen] {
    chosen = [arguments] { return could_not_look_if_failed(verify(*arguments)); };
  });
}

}  // namespace obd::tool
