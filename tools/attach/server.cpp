#include "tools/attach/server.h"

#include <signal.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>

#include "core/io/file.h"
#include "tools/obd/interrupt.h"
#include "tools/obd/program.h"

namespace obd::attach {
namespace {

using namespace std::chrono_literals;

constexpr auto kPatience = 60s;  // an image of 255 lowers on a cold, slow disk
constexpr uint64_t kMaxLogSize = 16 << 20;

Result<void> wait_until_it_answers(const StatePaths& paths, const ProcessId& server,
                                   const std::string& image) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  auto watch = ProcessWatch::open(server);
  if (!watch && watch.error().code != ESRCH) return std::unexpected(watch.error());
  while (watch) {
    // nbdkit writes the file when it is ready for clients.
    if (::access(paths.server_ready.c_str(), F_OK) == 0) return {};
    if (watch->wait(2ms)) break;
    OBD_TRY(tool::check_interrupt());
    if (std::chrono::steady_clock::now() > deadline) {
      return fail(ETIMEDOUT, "{}: its server does not answer; see {}", image, paths.server_log);
    }
  }
  const std::string words = last_words(paths.server_log);
  return fail(EIO, "{}",
              words.empty() ? fmt::format("{}: its server ended without a word", image) : words);
}

}  // namespace

Result<ProcessId> start_server(const StatePaths& paths, const Attachment& attachment) {
  if (paths.socket.size() >= sizeof(sockaddr_un::sun_path)) {
    return fail(ENAMETOOLONG, "{}: is too long for a socket's path; choose a shorter state folder",
                paths.socket);
  }
  OBD_TRY_ASSIGN(const std::string nbdkit, tool::find_program("nbdkit"));
  Program program{
      .words = {nbdkit, "--foreground", "--unix", paths.socket, "--pidfile", paths.server_ready},
      .log_path = paths.server_log,
      .record_path = paths.server_record,
      .kept_fds = {},
      .serves_io = true,
      .only_files = true};
  if (attachment.read_only) program.words.emplace_back("--readonly");
  program.words.push_back(attachment.plugin);
  program.words.push_back("config=" + attachment.image);
  const ServerOptions& options = attachment.server;
  program.words.push_back(fmt::format("cache-size={}", options.cache_size));
  program.words.push_back(fmt::format("max-upper-size={}", options.max_upper_size));
  program.words.push_back(fmt::format("detect-zeroes={}", options.detect_zeroes));
  program.words.push_back(fmt::format("gc={}", options.gc ? "on" : "off"));
  program.words.push_back(fmt::format("gc-rate={}", options.gc_rate));

  // The words of the one before stay in a file of their own; its socket's name is not removed by
  // nbdkit.
  ::rename(paths.server_log.c_str(), (paths.server_log + ".1").c_str());
  ::unlink(paths.socket.c_str());
  ::unlink(paths.server_ready.c_str());
  OBD_TRY_ASSIGN(const ProcessId server, spawn_detached(program));
  if (auto ready = wait_until_it_answers(paths, server, attachment.image); !ready) {
    OBD_TRY(end_process(server, SIGTERM, 5s));
    return std::unexpected(ready.error());
  }
  return server;
}

std::string last_words(const std::string& log_path) {
  const auto text = read_whole(posix_file_system(), log_path, kMaxLogSize);
  if (!text) return "";
  std::string_view words = *text;
  while (!words.empty() && words.back() == '\n') words.remove_suffix(1);
  if (const size_t line = words.rfind('\n'); line != std::string_view::npos) {
    words.remove_prefix(line + 1);
  }
  for (const std::string_view prefix : {"nbdkit: ", "error: ", "overlaybd: "}) {
    if (words.starts_with(prefix)) words.remove_prefix(prefix.size());
  }
  return std::string(words);
}

}  // namespace obd::attach
