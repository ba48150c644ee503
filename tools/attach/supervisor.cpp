// A server dies; then, in this order: its successor starts and opens the image (which the dead one
// has unlocked by dying, so no write of the old can come after one of the new), and the kernel gets
// connections to it. Requests that the old one had not answered are sent again by the kernel, or by
// the FUSE front end, which connects by itself.
//
// A connection that breaks under a living server is treated as its death, by killing it: it could
// otherwise carry out a request late that the kernel has sent again and followed up by newer ones.

#include "tools/attach/supervisor.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <optional>

#include "core/io/descriptor.h"
#include "core/io/file.h"
#include "tools/attach/nbd_kernel.h"
#include "tools/attach/nbd_sockets.h"
#include "tools/attach/process.h"
#include "tools/attach/server.h"
#include "tools/obd/interrupt.h"
#include "tools/obd/program.h"

namespace obd::attach {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// One that has lived longer died of something else than its start.
constexpr auto kLongLife = 2s;
// It is given up when short lives have followed each other for as long as requests wait, and so
// often.
constexpr unsigned kMinShortLives = 5;
constexpr std::chrono::milliseconds kFirstPause = 20ms;
// Until the kernel has seen that all its connections are dead; it replaces only those.
constexpr auto kForLinksToDie = 2s;
// A server that is being killed closes its connections some moments before it is dead.
constexpr auto kForServerToDie = 1s;
constexpr auto kForServerToStart = 70s;  // more than start_server() waits

class Supervisor {
 public:
  explicit Supervisor(const StatePaths& paths) : paths_(paths) {}
  Result<void> run(Links links);

 private:
  enum class Event { asked_to_stop, server_died, link_died, nothing };

  Result<void> prepare(Links links);
  // Until something happens; a negative timeout: for as long as that takes.
  Result<Event> wait(const ProcessWatch* server, std::chrono::milliseconds timeout);
  Result<bool> attend(const ProcessWatch& server);
  Result<void> replace_server();
  Result<void> give_kernel_new_links();
  void save_status();

  const StatePaths& paths_;
  Attachment attachment_;
  ServerStatus status_;
  std::optional<NbdKernel> kernel_;  // of the nbd back end
  unsigned index_ = 0;
  unsigned dead_links_ = 0;
  Descriptor signals_;
};

Result<void> Supervisor::prepare(Links links) {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&set, number);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  signals_ = Descriptor(::signalfd(-1, &set, SFD_CLOEXEC));
  if (!signals_) return fail_errno(errno, "signalfd");
  OBD_TRY(tool::check_interrupt());  // one that came before
  OBD_TRY_ASSIGN(auto attachment, look_at(paths_));
  if (!attachment) return fail(ENOENT, "{}: nothing is attached", paths_.folder);
  attachment_ = std::move(*attachment);
  status_ = server_status(paths_).value_or(ServerStatus{});  // told, not needed
  status_.given_up = false;
  save_status();
  if (attachment_.backend == Backend::nbd) {
    OBD_TRY_ASSIGN(NbdKernel kernel, NbdKernel::open());
    OBD_TRY_ASSIGN(index_, nbd_index(attachment_.device));
    OBD_TRY(kernel.listen(index_));
    kernel_.emplace(std::move(kernel));
    // The kernel does not tell which of its connections are dead, and a server that lives on behind
    // a dead one could carry out an old request late.
    OBD_TRY_ASSIGN(const auto server, read_process_record(paths_.server_record));
    // It is waited for until it is dead, should it hang in the kernel.
    if (links == Links::unknown && server) {
      static_cast<void>(end_process(*server, SIGKILL, kForServerToDie));
    }
  }
  return {};
}

// Only a help for whoever looks: a full disk must not end the server's keeper.
void Supervisor::save_status() {
  static_cast<void>(replace_file(posix_file_system(), paths_.server_status, to_json(status_)));
}

Result<Supervisor::Event> Supervisor::wait(const ProcessWatch* server,
                                           std::chrono::milliseconds timeout) {
  std::array<pollfd, 3> polls = {
      {{.fd = signals_.get(), .events = POLLIN, .revents = 0},
       {.fd = server != nullptr ? server->fd() : -1, .events = POLLIN, .revents = 0},
       {.fd = kernel_ ? kernel_->fd() : -1, .events = POLLIN, .revents = 0}}};
  const int ready = ::poll(polls.data(), polls.size(), static_cast<int>(timeout.count()));
  if (ready < 0 && errno != EINTR) return fail_errno(errno, "poll");
  if (ready <= 0) return Event::nothing;
  if (polls[0].revents != 0) return Event::asked_to_stop;
  if (polls[2].revents != 0) {
    OBD_TRY_ASSIGN(const unsigned died, kernel_->links_died());
    dead_links_ += died;
  }
  if (polls[1].revents != 0) return Event::server_died;
  return dead_links_ > 0 ? Event::link_died : Event::nothing;
}

// Stays with a server until it is dead: true. False: this process is asked to stop.
Result<bool> Supervisor::attend(const ProcessWatch& server) {
  std::optional<Clock::time_point> deadline;
  while (true) {
    OBD_TRY_ASSIGN(const Event event, wait(&server, deadline ? 50ms : -1ms));
    if (event == Event::asked_to_stop) return false;
    if (event == Event::server_died) return true;
    if (event == Event::link_died && !deadline) deadline = Clock::now() + kForServerToDie;
    if (deadline && Clock::now() > *deadline) {
      OBD_TRY(server.signal(SIGKILL));
      deadline = Clock::now() + kForServerToDie;
    }
  }
}

Result<void> Supervisor::give_kernel_new_links() {
  const auto deadline = Clock::now() + kForLinksToDie;
  while (dead_links_ < attachment_.connections && Clock::now() < deadline) {
    OBD_TRY(wait(nullptr, 10ms));
  }
  if (nbd_identifier(index_) != attachment_.identifier) {
    return fail(ENODEV, "{}: is not this image's device any more", attachment_.device);
  }
  dead_links_ = 0;
  OBD_TRY_ASSIGN(const NbdSockets sockets,
                 NbdSockets::connect(paths_.socket, attachment_.connections));
  return kernel_->reconnect(
      index_, sockets, attachment_.identifier,
      {.dead_connection = attachment_.dead_timeout, .request = attachment_.request_timeout});
}

// A server that takes requests again. What stands in the way is told in the status.
Result<void> Supervisor::replace_server() {
  ++status_.restarts;
  auto server = start_server(paths_, attachment_);
  Result<void> connected = server && kernel_ ? give_kernel_new_links() : Result<void>();
  if (!server) status_.last_words = server.error().message;
  if (!connected) {
    status_.last_words = connected.error().message;
    // One that hangs in the kernel is waited for, as every server is.
    static_cast<void>(end_process(*server, SIGKILL, kForServerToDie));
  }
  save_status();
  return {};
}

Result<void> Supervisor::run(Links links) {
  OBD_TRY(prepare(links));
  unsigned short_lives = 0;
  Clock::time_point last_long_life = Clock::now();
  const std::chrono::seconds patience(attachment_.dead_timeout);
  while (true) {
    OBD_TRY_ASSIGN(const auto server, read_process_record(paths_.server_record));
    const auto watch = server ? ProcessWatch::open(*server) : fail(ESRCH, "there is no server");
    const auto born = Clock::now();
    if (watch) {
      OBD_TRY_ASSIGN(const bool died, attend(*watch));
      if (!died) return {};
      const std::string words = last_words(paths_.server_log);
      status_.last_words = words.empty() ? "it ended without a word, as when it is killed" : words;
    }
    const bool lived_long = Clock::now() - born > kLongLife;
    short_lives = lived_long ? 0 : short_lives + 1;
    if (lived_long) last_long_life = Clock::now();
    status_.given_up = short_lives >= kMinShortLives && Clock::now() - last_long_life > patience;
    save_status();
    if (status_.given_up) {
      return fail(EIO, "{}: its server died {} times in a row and is left down: {}",
                  attachment_.image, short_lives, status_.last_words);
    }
    const auto pause = kFirstPause * (1U << std::min(short_lives, 7U));
    OBD_TRY_ASSIGN(const Event event, wait(nullptr, short_lives > 0 ? pause : 0ms));
    if (event == Event::asked_to_stop) return {};
    OBD_TRY(replace_server());
  }
}

// obd-mount, whoever attaches: the running program itself, or beside it, or in PATH. The file of a
// program that was upgraded while it ran has no name of its own any more, but that of its folder.
Result<std::string> find_supervisor() {
  std::error_code code;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", code);
  const std::string beside = self.parent_path() / "obd-mount";
  if (!code && ::access(beside.c_str(), X_OK) == 0) return beside;
  return tool::find_program("obd-mount");
}

}  // namespace

bool is_supervised(const StatePaths& paths) {
  const auto supervisor = read_process_record(paths.supervisor_record);
  return supervisor && *supervisor && is_running(**supervisor);
}

Result<void> start_supervisor(const std::string& state_dir, const StatePaths& paths, Links links) {
  OBD_TRY_ASSIGN(const std::string obd_mount, find_supervisor());
  Program program{.words = {obd_mount, "supervise", "--state-dir", state_dir, paths.id},
                  .log_path = paths.supervisor_log,
                  .record_path = paths.supervisor_record,
                  .kept_fds = {},
                  .serves_io = true,
                  .only_files = false};
  if (links == Links::alive) program.words.emplace_back("--links-alive");
  OBD_TRY(spawn_detached(program));
  return {};
}

Result<void> ensure_supervisor(const std::string& state_dir, const StatePaths& paths) {
  if (is_supervised(paths)) return {};
  return start_supervisor(state_dir, paths, Links::unknown);
}

Result<void> stop_supervisor(const StatePaths& paths) {
  OBD_TRY_ASSIGN(const auto supervisor, read_process_record(paths.supervisor_record));
  if (!supervisor) return {};
  return end_process(*supervisor, SIGTERM, kForServerToStart);
}

Result<void> supervise(const StatePaths& paths, Links links) {
  return Supervisor(paths).run(links);
}

}  // namespace obd::attach
