// obd-mount recover: puts in order what died or was interrupted.

#include <memory>

#include "tools/attach/attach.h"
#include "tools/mount/arguments.h"
#include "tools/mount/command.h"
#include "tools/mount/recover.h"

namespace obd::mount {

Result<int> recover_all(const std::string& state_dir) {
  OBD_TRY(require_root());
  OBD_TRY(attach::check_state_dir(state_dir));
  OBD_TRY_ASSIGN(const auto ids, attach::list_ids(state_dir));
  int status = kExitSuccess;
  for (const std::string& id : ids) {
    auto state = attach::ImageState::lock_id(state_dir, id);
    const Result<std::string> done =
        state ? attach::recover(*state) : Result<std::string>(std::unexpected(state.error()));
    if (!done) {
      complain(done.error().message);
      status = kExitFailure;
    } else if (!done->empty()) {
      fmt::print("{}\n", *done);
    }
  }
  return status;
}

void add_recover(CLI::App& app, Runner& chosen) {
  CLI::App* command = app.add_subcommand("recover", "Puts in order what died or was interrupted");
  const auto state_dir = std::make_shared<std::string>(attach::kDefaultStateDir);
  add_state_dir(*command, *state_dir);
  command->footer(
      "Supervisors that died are started again, interrupted calls are finished or undone, and\n"
      "what a reboot left is removed. Nothing that is in use is touched. Run it at boot, after\n"
      "an upgrade, and whenever `obd-mount doctor` says so.");
  command->callback(
      [state_dir, &chosen] { chosen = [state_dir] { return recover_all(*state_dir); }; });
}

}  // namespace obd::mount
