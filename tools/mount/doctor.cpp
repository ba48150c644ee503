// obd-mount doctor: what this host can do, and what on it is stale.

#include "tools/attach/doctor.h"

#include <algorithm>
#include <memory>

#include "tools/attach/attach.h"
#include "tools/mount/arguments.h"
#include "tools/mount/command.h"
#include "tools/mount/recover.h"
#include "tools/obd/common.h"

namespace obd::mount {
namespace {

struct DoctorOptions {
  std::string state_dir = attach::kDefaultStateDir;
  bool json = false;
  bool fix = false;
};

void print_json(const std::vector<attach::Finding>& findings) {
  tool::Json list = tool::Json::array();
  for (const attach::Finding& finding : findings) {
    list.push_back({{"what", finding.what},
                    {"verdict", attach::to_text(finding.verdict)},
                    {"detail", finding.detail}});
  }
  fmt::print("{}\n", tool::json_text(list, 2));
}

Result<int> run_doctor(const DoctorOptions& options) {
  if (options.fix) OBD_TRY(recover_all(options.state_dir));
  const auto findings = attach::examine_host(options.state_dir);
  if (options.json) {
    print_json(findings);
  } else {
    for (const attach::Finding& finding : findings) {
      fmt::print("{:8} {:10} {}\n", attach::to_text(finding.verdict), finding.what, finding.detail);
    }
  }
  const bool bad = std::ranges::any_of(findings, [](const attach::Finding& finding) {
    return finding.verdict == attach::Verdict::bad;
  });
  return bad ? kExitFailure : kExitSuccess;
}

}  // namespace

void add_doctor(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<DoctorOptions>();
  CLI::App* command =
      app.add_subcommand("doctor", "Tells what this host can do, and what is stale");
  command->add_flag("--fix", options->fix, "Run `obd-mount recover` first");
  command->add_flag("--json", options->json, "Print JSON");
  add_state_dir(*command, options->state_dir);
  command->footer("Exit status: 0 images can be attached, 1 they cannot.");
  command->callback([options, &chosen] { chosen = [options] { return run_doctor(*options); }; });
}

}  // namespace obd::mount
