// obd-fuse: shows the disk of an NBD server as a file. This one parses the command line, puts the
// parts together and handles signals.
//
// Threads: the workers serve; the link's keeper connects anew; this one waits for signals and for
// the end.

#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <memory>
#include <thread>

#include "tools/fuse/disk.h"
#include "tools/fuse/link.h"
#include "tools/fuse/mount.h"
#include "tools/fuse/say.h"
#include "tools/fuse/worker.h"

namespace obd::fuse {
namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;
constexpr unsigned kMostConnections = 16;
constexpr size_t kLargeBlocks = 64;  // of all workers

constexpr const char* kExamples = R"(Examples:
  touch disk
  obd-fuse --socket vm1.sock disk &                      the disk of a server as the file `disk`
  until mountpoint --quiet disk; do sleep 0.1; done
  losetup --find --show --direct-io=on disk              the same as a block device
  umount disk                                            ends obd-fuse
  obd-fuse --read-only nbd+unix:///?socket=vm1.sock disk
  obd-fuse --give-up-after 60 --socket vm1.sock disk     errors after a minute without a server

When the server dies, obd-fuse waits for another one on the same socket, and repeats what was not
answered: nobody who uses the disk sees an error. Exit status: 0 the disk was unmounted, 1 failure,
2 the command line was not understood.)";

struct Arguments {
  Link::Options link;
  double give_up_after = 0;
  int ready_fd = -1;
  std::string mount_point;
};

// Workers do nothing but system calls: the server and the loop device need CPUs as well.
unsigned default_connections() { return std::clamp(std::thread::hardware_concurrency(), 1U, 2U); }

using Workers = std::vector<std::unique_ptr<Worker>>;

Result<sigset_t> block_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, number);
  const int code = pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  if (code != 0) return fail_errno(code, "cannot block signals");
  return signals;
}

Result<void> tell_ready(int fd) {
  if (fd < 0) return {};
  static constexpr char kReady[] = "ready\n";
  if (::write(fd, kReady, sizeof kReady - 1) != sizeof kReady - 1) {
    return fail_errno(errno, "--ready-fd {}: cannot write", fd);
  }
  // Whoever waits for the end of what we say need not wait for ours.
  ::close(fd);
  return {};
}

// Until the disk is unmounted, be it for a signal.
Result<void> wait_for_end(Mount& mount, const Link& link, const sigset_t& signals) {
  const Descriptor signal_fd(::signalfd(-1, &signals, SFD_CLOEXEC));
  if (!signal_fd) return fail_errno(errno, "cannot make a signalfd");
  for (;;) {
    pollfd items[] = {{.fd = signal_fd.get(), .events = POLLIN, .revents = 0},
                      {.fd = link.stopped_fd(), .events = POLLIN, .revents = 0}};
    if (::poll(items, 2, -1) < 0) continue;
    if (items[1].revents != 0) return {};
    signalfd_siginfo info{};
    if (::read(signal_fd.get(), &info, sizeof info) != sizeof info) continue;
    if (const auto done = mount.unmount_if_unused(); !done) {
      say("{}: not ended by the signal, going on", done.error().message);
    }
  }
}

// Requests in flight hold the pages of those who wait for them, so this process must not wait for
// memory that can only be freed by writing to its own disk. Needs a privilege; without it that is a
// risk under memory pressure, as with every disk that a process serves.
void avoid_waiting_for_own_disk() { ::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0); }

Result<void> serve(Mount& mount, Link& link, int ready_fd, const sigset_t& signals) {
  Workers workers;
  for (unsigned seat = 0; seat < link.connections(); ++seat) {
    const Worker::Options options{.requests = 256,
                                  .large_blocks = kLargeBlocks / link.connections()};
    OBD_TRY_ASSIGN(auto worker, Worker::create(mount.session(), link, seat, options));
    workers.push_back(std::move(worker));
  }
  link.start();
  std::vector<std::thread> threads;
  threads.reserve(workers.size());
  for (const auto& worker : workers) threads.emplace_back(&Worker::run, worker.get());
  Result<void> result = tell_ready(ready_fd);
  if (result) result = wait_for_end(mount, link, signals);
  link.stop();
  for (std::thread& thread : threads) thread.join();
  // One flush is for all.
  for (size_t i = 0; i < workers.size(); ++i) {
    const Result<void> finished = workers[i]->finish(/*flush=*/i == 0);
    if (result && !finished) result = finished;
  }
  return result;
}

Result<void> run(const Arguments& arguments) {
  OBD_TRY_ASSIGN(const auto link, Link::open(arguments.link));
  Disk disk{.exported = link->exported(), .owner = ::getuid(), .group = ::getgid()};
  ::clock_gettime(CLOCK_REALTIME, &disk.since);
  // Only now: while connecting, a signal ends the process.
  OBD_TRY_ASSIGN(const sigset_t signals, block_signals());
  OBD_TRY_ASSIGN(const auto mount,
                 Mount::create(disk, arguments.mount_point, arguments.link.address.text()));
  return serve(*mount, *link, arguments.ready_fd, signals);
}

// The first of two words can be left out, of which CLI11 knows no way to tell.
struct HelpFormatter : CLI::Formatter {
  std::string make_usage(const CLI::App* /*app*/, std::string name) const override {
    return fmt::format("Usage: {} [OPTIONS] [URI] MOUNTPOINT\n", name);
  }
};

int parse_and_run(int argc, char** argv) {
  CLI::App app("Shows the disk of an NBD server as a file, for a loop device to use.", "obd-fuse");
  app.set_version_flag("--version", "obd-fuse " OBD_VERSION);
  app.formatter(std::make_shared<HelpFormatter>());
  app.get_formatter()->column_width(34);
  app.footer(kExamples);
  Arguments arguments;
  Link::Options& link = arguments.link;
  link.connections = default_connections();
  std::vector<std::string> places;
  app.add_flag("-r,--read-only", link.read_only, "Refuse writes");
  app.add_option("--connections", link.connections,
                 fmt::format("Workers, each with a connection of its own, if the server allows "
                             "several (default here: {})",
                             link.connections))
      ->check(CLI::Range(1U, kMostConnections));
  const CLI::Option* const give_up =
      app.add_option("--give-up-after", arguments.give_up_after,
                     "Without a server for so many seconds, fail requests until there is one again "
                     "(default: wait for ever)")
          ->check(CLI::Range(0.0, 1e9));
  app.add_flag("--end-server", link.end_server,
               "Kill a server that breaks a connection but lives on, for its supervisor to start "
               "another");
  app.add_option("--ready-fd", arguments.ready_fd,
                 "Write \"ready\" and a newline to this descriptor when the disk can be used")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--socket", link.address.socket, "The Unix socket that the server listens on");
  app.add_option("PLACES", places,
                 "[URI] MOUNTPOINT: the server, unless --socket names it, and an empty regular "
                 "file")
      ->required()
      ->expected(1, 2);
  const auto usage = [](const std::string& complaint) {
    fmt::print(stderr, "obd-fuse: {}\nTry 'obd-fuse --help'.\n", complaint);
    return kExitUsage;
  };
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help or --version
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    return usage(error.what());
  }
  const bool named = !link.address.socket.empty();
  if (named && places.size() > 1) {
    return usage("both --socket and a URI are given: name the server once");
  }
  if (!named && places.size() < 2) return usage("no server is given: use --socket or a URI");
  if (!named) link.address.uri = places.front();
  arguments.mount_point = places.back();
  if (*give_up) link.give_up_after = std::chrono::duration<double>(arguments.give_up_after);

  avoid_waiting_for_own_disk();
  if (const Result<void> result = run(arguments); !result) {
    say("{}", result.error().message);
    return kExitFailure;
  }
  return 0;
}

}  // namespace
}  // namespace obd::fuse

int main(int argc, char** argv) {
  try {
    return obd::fuse::parse_and_run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs("obd-fuse: out of memory\n", stderr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "obd-fuse: internal error: %s\n", error.what());
  }
  return obd::fuse::kExitFailure;
}
