// obd-mount list: what is attached, and how it fares.

#include <algorithm>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "tools/attach/attach.h"
#include "tools/attach/process.h"
#include "tools/attach/supervisor.h"
#include "tools/mount/arguments.h"
#include "tools/mount/command.h"
#include "tools/obd/common.h"

namespace obd::mount {
namespace {

struct Row {
  attach::Attachment attachment;
  attach::ServerStatus server;
  std::string state;
  pid_t server_pid = 0;  // 0: not running
};

pid_t running_pid(const std::string& record) {
  const auto process = attach::read_process_record(record);
  return process && *process && attach::is_running(**process) ? (*process)->pid : 0;
}

// One word: what `obd-mount recover` could mend is not "attached".
std::string state_of(const attach::StatePaths& paths, const attach::Attachment& attachment,
                     const attach::ServerStatus& server, pid_t server_pid) {
  if (attachment.phase != attach::Phase::attached) return std::string(to_text(attachment.phase));
  if (!attach::is_alive(paths, attachment)) return "dead";
  if (server.given_up && server_pid == 0) return "down";
  return attach::is_supervised(paths) ? "attached" : "unsupervised";
}

// nullopt: it is just coming or going.
Result<std::optional<Row>> read_row(const attach::StatePaths& paths) {
  OBD_TRY_ASSIGN(const auto attachment, attach::look_at(paths));
  if (!attachment) return std::nullopt;
  Row row{.attachment = *attachment, .server = {}, .state = {}};
  OBD_TRY_ASSIGN(row.server, attach::server_status(paths));
  row.server_pid = running_pid(paths.server_record);
  row.state = state_of(paths, row.attachment, row.server, row.server_pid);
  return row;
}

tool::Json to_json(const Row& row) {
  tool::Json directories = tool::Json::array();
  for (const attach::MountPoint& mount : row.attachment.mounts)
    directories.push_back(mount.directory);
  return {{"image", row.attachment.image},
          {"device", row.attachment.device},
          {"state", row.state},
          {"backend", to_text(row.attachment.backend)},
          {"read_only", row.attachment.read_only},
          {"directories", std::move(directories)},
          {"server_pid", row.server_pid},
          {"restarts", row.server.restarts},
          {"last_words", row.server.last_words}};
}

void print_table(const std::vector<Row>& rows) {
  if (rows.empty()) return;
  fmt::print("{:12} {:12} {:4} {:2} {:>8} {:>4}  {}\n", "DEVICE", "STATE", "BACK", "", "SERVER",
             "DIED", "IMAGE");
  for (const Row& row : rows) {
    fmt::print("{:12} {:12} {:4} {:2} {:>8} {:>4}  {}\n",
               row.attachment.device.empty() ? "-" : row.attachment.device, row.state,
               to_text(row.attachment.backend), row.attachment.read_only ? "ro" : "rw",
               row.server_pid != 0 ? std::to_string(row.server_pid) : "-", row.server.restarts,
               tool::printable(row.attachment.image));
    for (const attach::MountPoint& mount : row.attachment.mounts) {
      fmt::print("             on {} ({})\n", tool::printable(mount.directory), mount.fstype);
    }
    if (!row.server.last_words.empty()) {
      fmt::print("             died of: {}\n", tool::printable(row.server.last_words));
    }
  }
}

Result<int> run_list(const std::string& state_dir, bool json) {
  OBD_TRY_ASSIGN(const auto ids, attach::list_ids(state_dir));
  std::vector<Row> rows;
  int status = kExitSuccess;
  for (const std::string& id : ids) {
    auto row = read_row(attach::StatePaths(state_dir, id));
    if (!row) {  // the others are shown all the same
      complain(row.error().message);
      status = kExitFailure;
    } else if (*row) {
      rows.push_back(std::move(**row));
    }
  }
  std::ranges::sort(rows, {}, [](const Row& row) { return row.attachment.image; });
  if (!json) {
    print_table(rows);
    return status;
  }
  tool::Json list = tool::Json::array();
  for (const Row& row : rows) list.push_back(to_json(row));
  fmt::print("{}\n", tool::json_text(list, 2));
  return status;
}

}  // namespace

void add_list(CLI::App& app, Runner& chosen) {
  CLI::App* command = app.add_subcommand("list", "Lists what is attached, and how it fares");
  const auto state_dir = std::make_shared<std::string>(attach::kDefaultStateDir);
  const auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Print JSON");
  add_state_dir(*command, *state_dir);
  command->callback([state_dir, json, &chosen] {
    chosen = [state_dir, json] { return run_list(*state_dir, *json); };
  });
}

}  // namespace obd::mount
