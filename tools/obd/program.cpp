#include "tools/obd/program.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string_view>

#include "tools/obd/interrupt.h"

namespace obd::tool {
namespace {

// A user's PATH often lacks the folders that the programs of file systems are in.
constexpr std::string_view kSystemFolders = "/usr/local/sbin:/usr/sbin:/sbin";

class SpawnActions {
 public:
  SpawnActions() { posix_spawn_file_actions_init(&actions_); }
  ~SpawnActions() { posix_spawn_file_actions_destroy(&actions_); }
  SpawnActions(const SpawnActions&) = delete;
  SpawnActions& operator=(const SpawnActions&) = delete;
  posix_spawn_file_actions_t* get() { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_;
};

Result<pid_t> spawn(const std::vector<std::string>& words, ProgramOutput output) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  // It has nobody to ask, and standard output is for what obd itself has to say.
  SpawnActions actions;
  int code =
      posix_spawn_file_actions_addopen(actions.get(), STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  if (code == 0 && output == ProgramOutput::discarded) {
    code = posix_spawn_file_actions_addopen(actions.get(), STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  }
  if (code == 0) {
    code = posix_spawn_file_actions_adddup2(actions.get(), STDERR_FILENO, STDOUT_FILENO);
  }
  pid_t pid = 0;
  if (code == 0) {
    code = posix_spawn(&pid, words.front().c_str(), actions.get(), nullptr, argv.data(), environ);
  }
  if (code != 0) return fail_errno(code, "{}: cannot run", words.front());
  return pid;
}

}  // namespace

Result<std::string> find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  const std::string folders = fmt::format("{}:{}", path != nullptr ? path : "", kSystemFolders);
  std::string_view rest = folders;
  while (!rest.empty()) {
    const std::string_view folder = rest.substr(0, rest.find(':'));
    rest.remove_prefix(std::min(rest.size(), folder.size() + 1));
    if (folder.empty()) continue;
    std::string program = fmt::format("{}/{}", folder, name);
    if (::access(program.c_str(), X_OK) == 0) return program;
  }
  return fail(ENOENT, "there is no program {}", name);
}

Result<int> run_program(const std::vector<std::string>& words, ProgramOutput output) {
  OBD_TRY_ASSIGN(const pid_t pid, spawn(words, output));
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return fail_errno(errno, "{}: cannot wait for it", words.front());
    if (!check_interrupt()) ::kill(pid, SIGTERM);
  }
  OBD_TRY(check_interrupt());
  if (WIFSIGNALED(status)) {
    return fail(EIO, "{} was ended by signal {}", words.front(), WTERMSIG(status));
  }
  return WEXITSTATUS(status);
}

}  // namespace obd::tool
