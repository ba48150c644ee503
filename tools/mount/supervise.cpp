// obd-mount supervise: the process that looks after one server. obd-mount starts it by itself.

#include "tools/attach/supervisor.h"

#include <memory>

#include "tools/attach/attach.h"
#include "tools/mount/arguments.h"
#include "tools/mount/command.h"

namespace obd::mount {

void add_supervise(CLI::App& app, Runner& chosen) {
  CLI::App* command = app.add_subcommand("supervise", "Looks after the server of one image");
  command->group("");  // nobody's business: left out of --help
  const auto state_dir = std::make_shared<std::string>(attach::kDefaultStateDir);
  const auto id = std::make_shared<std::string>();
  add_state_dir(*command, *state_dir);
  command->add_option("ID", *id)->required();
  const auto links_alive = std::make_shared<bool>(false);
  command->add_flag("--links-alive", *links_alive);
  command->callback([state_dir, id, links_alive, &chosen] {
    chosen = [state_dir, id, links_alive]() -> Result<int> {
      if (!attach::is_image_id(*id)) return fail(EINVAL, "{}: is no image's name", *id);
      OBD_TRY(attach::supervise(attach::StatePaths(*state_dir, *id),
                                *links_alive ? attach::Links::alive : attach::Links::unknown));
      return kExitSuccess;
    };
  });
}

}  // namespace obd::mount
