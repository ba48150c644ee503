// obd check: verifies every structure of an image or a layer.

#include <algorithm>
#include <memory>

#include "core/image/check.h"
#include "tools/obd/command.h"
#include "tools/obd/common.h"

namespace obd::tool {
namespace {

struct CheckOptions {
  std::string target;
  bool json = false;
  bool force_share = false;
};

int status_of(const CheckReport& report) {
  // What is known to be wrong says more than what is not known.
  if (std::ranges::any_of(report.findings, &Finding::wrong)) return kExitFailure;
  return report.complete ? kExitSuccess : kExitCouldNotLook;
}

void print_json(const std::string& path, const CheckReport& report) {
  Json json = {{"path", path},
               {"clean", status_of(report) == kExitSuccess},
               {"complete", report.complete},
               {"findings", Json::array()}};
  for (const Finding& finding : report.findings) {
    json["findings"].push_back(
        {{"severity", finding.wrong ? "wrong" : "warning"}, {"text", finding.text}});
  }
  fmt::print("{}\n", json_text(json, 2));
}

void print_human(const std::string& path, const CheckReport& report) {
  for (const Finding& finding : report.findings) {
    fmt::print("{}: {}\n", finding.wrong ? "wrong" : "warning", finding.text);
  }
  const auto wrong = static_cast<uint64_t>(std::ranges::count_if(report.findings, &Finding::wrong));
  const uint64_t warnings = report.findings.size() - wrong;
  std::string verdict = wrong != 0        ? fmt::format("{} wrong", counted(wrong, "thing"))
                        : report.complete ? "clean"
                                          : "nothing wrong found";
  if (warnings != 0) verdict += ", " + counted(warnings, "warning");
  if (!report.complete) verdict += "; not everything could be looked at";
  if (report.in_use) verdict += " (-U looks at an image that is in use)";
  fmt::print("{}: {}\n", path, verdict);
}

Result<int> check(const CheckOptions& options) {
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(const std::string path, find_path(fs, options.target));
  OBD_TRY_ASSIGN(const CheckReport report, check_image_or_layer(fs, path, options.force_share));
  if (options.json) {
    print_json(path, report);
  } else {
    print_human(path, report);
  }
  return status_of(report);
}

// A check that cannot even begin must not look like one that found something.
Result<int> run_check(const CheckOptions& options) {
  const Result<int> status = check(options);
  if (status) return status;
  fmt::print(stderr, "obd: {}\n", status.error().message);
  return kExitCouldNotLook;
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
  command->callback([options, &chosen] { chosen = [options] { return run_check(*options); }; });
}

}  // namespace obd::tool
