#include "tools/attach/front_end.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <string_view>
#include <thread>

#include "core/io/descriptor.h"
#include "tools/attach/server.h"
#include "tools/obd/program.h"

namespace obd::attach {
namespace {

using namespace std::chrono_literals;

constexpr int kPatienceMs = 30'000;

// Of stop_front_end().
constexpr auto kPause = 20ms;
constexpr auto kBeforeTold = 1s;
constexpr auto kForTheMountToGo = 2s;
constexpr auto kForOrderlyEnd = 20s;

Result<void> make_mount_point(const std::string& path) {
  const Descriptor fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(errno, "{}: cannot be made", path);
  return {};
}

// The front end says "ready\n", or closes the pipe when it dies.
Result<bool> hears_ready(int fd) {
  std::string said;
  while (true) {
    pollfd poll{.fd = fd, .events = POLLIN, .revents = 0};
    const int ready = ::poll(&poll, 1, kPatienceMs);
    if (ready < 0 && errno == EINTR) return fail(EINTR, "interrupted");
    if (ready <= 0) return false;
    char text[16];
    const ssize_t got = ::read(fd, text, sizeof text);
    if (got <= 0) return false;
    said.append(text, static_cast<size_t>(got));
    if (said == "ready\n") return true;
  }
}

}  // namespace

Result<std::string> find_front_end() {
  std::error_code code;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", code);
  const std::string beside = self.parent_path() / "obd-fuse";
  if (!code && ::access(beside.c_str(), X_OK) == 0) return beside;
  return tool::find_program("obd-fuse");
}

Result<ProcessId> start_front_end(const StatePaths& paths, const Attachment& attachment) {
  OBD_TRY_ASSIGN(const std::string program_path, find_front_end());
  OBD_TRY(make_mount_point(paths.disk));
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, "cannot make a pipe");
  const Descriptor ours(ends[0]);
  Descriptor theirs(ends[1]);
  Program program{.words = {program_path, "--socket", paths.socket, "--connections",
                            fmt::format("{}", attachment.connections), "--give-up-after",
                            fmt::format("{}", attachment.dead_timeout), "--end-server",
                            "--ready-fd", fmt::format("{}", theirs.get())},
                  .log_path = paths.front_end_log,
                  .record_path = paths.front_end_record,
                  .kept_fds = {theirs.get()},
                  .serves_io = true,
                  .only_files = false};  // it has to mount
  if (attachment.read_only) program.words.emplace_back("--read-only");
  program.words.push_back(paths.disk);
  OBD_TRY_ASSIGN(const ProcessId front_end, spawn_detached(program));
  theirs = Descriptor();
  const Result<bool> ready = hears_ready(ours.get());
  if (ready && *ready) return front_end;
  OBD_TRY(stop_front_end(paths));
  OBD_TRY(ready);
  const std::string words = last_words(paths.front_end_log);
  return fail(EIO, "{}: {}", paths.disk, words.empty() ? "obd-fuse ended without a word" : words);
}

Result<void> stop_front_end(const StatePaths& paths) {
  OBD_TRY_ASSIGN(const auto front_end, read_process_record(paths.front_end_record));
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    // More than one: mounted again over what a killed front end left.
    while (::umount2(paths.disk.c_str(), UMOUNT_NOFOLLOW) == 0) {
    }
    const int code = errno;
    const auto waited = std::chrono::steady_clock::now() - start;
    const bool runs = front_end && is_running(*front_end);
    if (!runs && (code == EINVAL || code == ENOENT)) return {};
    if (!runs && waited > kForTheMountToGo)
      return fail_errno(code, "{}: cannot unmount", paths.disk);
    // Unmounted, it ends by itself once all it has to do is done. One that is not mounted yet,
    // since its starter was killed, does so only when it is told to.
    if (auto watch = runs ? ProcessWatch::open(*front_end) : fail(ESRCH, "ended"); watch) {
      if (waited > kForOrderlyEnd) {
        if (code == EBUSY) return fail(EBUSY, "{}: is in use", paths.disk);
        OBD_TRY(watch->signal(SIGKILL));
      }
      if (code != EBUSY && waited > kBeforeTold) OBD_TRY(watch->signal(SIGTERM));
      static_cast<void>(watch->wait(kPause));
    } else {
      std::this_thread::sleep_for(kPause);
    }
  }
}

}  // namespace obd::attach
