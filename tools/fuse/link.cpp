#include "tools/fuse/link.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "tools/fuse/say.h"

namespace obd::fuse {
namespace {

constexpr std::chrono::milliseconds kRetry{100};
constexpr std::chrono::seconds kFirstAnswer{30};  // to the first connection
constexpr std::chrono::seconds kTellAfter{2};     // that the old server still runs

void raise_event(const Descriptor& event) {
  // Can only fail when 2^64 - 1 events are pending.
  static_cast<void>(::eventfd_write(event.get(), 1));
}

Result<Descriptor> make_event() {
  Descriptor event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) return fail_errno(errno, "cannot make an eventfd");
  return event;
}

}  // namespace

Link::Link(Options options) : options_(std::move(options)) {}

Result<std::unique_ptr<Link>> Link::open(Options options) {
  std::unique_ptr<Link> link(new Link(std::move(options)));
  OBD_TRY_ASSIGN(link->stopped_, make_event());
  const Clock::time_point deadline = Clock::now() + kFirstAnswer;
  OBD_TRY_ASSIGN(auto connections, link->connect_all([&] { return Clock::now() < deadline; }));
  for (size_t i = 0; i < connections.size(); ++i) {
    OBD_TRY_ASSIGN(Descriptor wake, make_event());
    link->seats_.push_back({.wake = std::move(wake), .fresh = {}});
  }
  {
    const MutexLock lock(link->mutex_);
    link->hand_out(std::move(connections));
  }
  return link;
}

void Link::start() { keeper_ = std::thread(&Link::keep, this); }

Link::~Link() {
  stop();
  if (keeper_.joinable()) keeper_.join();
}

// The first call decides what the export is like and how many connections there are; later ones
// must find the same.
Result<std::vector<Connection>> Link::connect_all(const std::function<bool()>& keep_trying) {
  std::vector<Connection> connections;
  OBD_TRY_ASSIGN(Connection first, Connection::open(options_.address, keep_trying));
  Export exported = first.exported();
  // Never written to, it cannot miss that.
  if (options_.read_only) exported.read_only = true;
  unsigned wanted = exported.can_multi_conn ? options_.connections : 1;
  if (!seats_.empty()) {
    OBD_TRY(check_replacement(export_, exported));
    wanted = this->connections();
  }
  connections.push_back(std::move(first));
  while (connections.size() < wanted) {
    OBD_TRY_ASSIGN(Connection next, Connection::open(options_.address, keep_trying));
    if (next.server_pid() != connections.front().server_pid() ||
        next.exported().size != exported.size) {
      return fail(EAGAIN, "{}: its server was exchanged while connecting", options_.address.text());
    }
    connections.push_back(std::move(next));
  }
  if (seats_.empty()) export_ = exported;
  return connections;
}

// With the mutex, or before there are threads.
void Link::hand_out(std::vector<Connection> connections) {
  const Connection& first = connections.front();
  server_pid_ = first.server_pid();
  resend_ = first.server_pidfd() >= 0;
  server_pidfd_ = Descriptor(resend_ ? ::fcntl(first.server_pidfd(), F_DUPFD_CLOEXEC, 0) : -1);
  if (resend_ && !server_pidfd_) resend_ = false;
  for (size_t i = 0; i < seats_.size(); ++i) {
    seats_[i].fresh = std::move(connections[i]);
    seats_[i].holding = true;
  }
  set_phase(Phase::serving);
}

void Link::set_phase(Phase phase) {
  phase_ = phase;
  for (const Seat& seat : seats_) raise_event(seat.wake);
  changed_.notify_all();
}

Link::View Link::look(unsigned seat) {
  eventfd_t count = 0;
  static_cast<void>(::eventfd_read(seats_[seat].wake.get(), &count));
  const MutexLock lock(mutex_);
  View view{.phase = phase_, .resend = resend_, .fresh = std::move(seats_[seat].fresh)};
  seats_[seat].fresh.reset();
  return view;
}

void Link::release(unsigned seat) {
  const MutexLock lock(mutex_);
  seats_[seat].holding = false;
  if (phase_ == Phase::serving) {
    lost_at_ = Clock::now();
    for (Seat& other : seats_) {
      // Not yet fetched by its worker, who need not be asked for it.
      if (!other.fresh) continue;
      other.fresh.reset();
      other.holding = false;
    }
    set_phase(Phase::down);
  }
  changed_.notify_all();
}

void Link::stop() {
  const MutexLock lock(mutex_);
  if (phase_ == Phase::stopped) return;
  set_phase(Phase::stopped);
  raise_event(stopped_);
}

// ---- the keeper ----

// Gives up when it is time to. False when the link is stopped.
bool Link::check_patience() {
  const MutexLock lock(mutex_);
  if (phase_ == Phase::down && options_.give_up_after &&
      Clock::now() - lost_at_ >= *options_.give_up_after) {
    say("{}: no server for {} seconds: requests fail until there is one", options_.address.text(),
        options_.give_up_after->count());
    set_phase(Phase::given_up);
  }
  return phase_ != Phase::stopped;
}

bool Link::pause() {
  {
    MutexLock lock(mutex_);
    changed_.wait_for(lock, kRetry, [&] {
      mutex_.assert_held();
      return phase_ == Phase::stopped;
    });
  }
  return check_patience();
}

bool Link::wait_for_release() {
  const auto is_over = [&] {
    mutex_.assert_held();
    return phase_ == Phase::stopped ||
           std::ranges::none_of(seats_, [](const Seat& seat) { return seat.holding; });
  };
  do {
    MutexLock lock(mutex_);
    if (changed_.wait_for(lock, kRetry, is_over)) return phase_ != Phase::stopped;
  } while (check_patience());
  return false;
}

bool Link::wait_for_end_of_server() {
  if (!server_pidfd_) return true;
  const Clock::time_point tell_at = Clock::now() + kTellAfter;
  bool told = false;
  while (!has_ended(server_pidfd_.get(), static_cast<int>(kRetry.count()))) {
    if (!check_patience()) return false;
    if (!told && Clock::now() >= tell_at && options_.end_server) {
      say("{}: its server, process {}, has closed the connection but still runs: ending it",
          options_.address.text(), server_pid_);
      ::syscall(SYS_pidfd_send_signal, server_pidfd_.get(), SIGKILL, nullptr, 0);
      told = true;
    }
    if (!told && Clock::now() >= tell_at) {
      say("{}: its server, process {}, has closed the connection but still runs: waiting for its "
          "end",
          options_.address.text(), server_pid_);
      told = true;
    }
  }
  return true;
}

bool Link::reconnect() {
  std::string told;
  do {
    auto connections = connect_all([&] { return check_patience(); });
    if (connections) {
      const MutexLock lock(mutex_);
      if (phase_ == Phase::stopped) return false;
      hand_out(std::move(*connections));
      say("{}: connected again after {:.1f} seconds", options_.address.text(),
          std::chrono::duration<double>(Clock::now() - lost_at_).count());
      return true;
    }
    // Once, not ten times a second.
    if (std::exchange(told, connections.error().message) != connections.error().message) {
      say("still waiting: {}", connections.error().message);
    }
  } while (pause());
  return false;
}

void Link::keep() {
  do {
    MutexLock lock(mutex_);
    changed_.wait(lock, [&] {
      mutex_.assert_held();
      return phase_ != Phase::serving;
    });
    if (phase_ == Phase::stopped) return;
    lock.unlock();
    say("{}: lost the connection to the server{}", options_.address.text(),
        resend_ ? "" : "; its process is not known, so requests it has not answered fail");
  } while (wait_for_release() && wait_for_end_of_server() && reconnect());
}

}  // namespace obd::fuse
