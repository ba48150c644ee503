// The link to the NBD server: as many connections as there are workers, given up and made anew
// together, whatever happens to the server.
//
// What a worker may rely on: a request that has got no reply is sent again on the next connection,
// and that is right. Its caller has not been told anything, so it may have been done or not, and
// nobody can have seen a newer request on the same bytes acknowledged because of it. One thing
// could go wrong: a server that still lives may carry out the old request late, after a newer one
// that the next server has acknowledged. So
//   - when one connection breaks, all are closed before anything is sent again;
//   - the process that served them, found by SO_PEERCRED and held by a pidfd from the moment of
//     connecting, must have ended before a new connection is made;
//   - the new connections must all be to one process, whose export passes check_replacement().
// Where that process cannot be known (Connection::server_pid), nothing is sent again: requests
// without a reply fail with EIO.
//
// A write that the old server has acknowledged is not sent again, flushed or not. That is right for
// servers from which an acknowledged write survives SIGKILL, as it does when they have handed it to
// the kernel, and wrong for those that keep it in memory of their own.
//
// Phases: serving -> down (a connection broke) -> serving, or -> given_up after give_up_after, in
// which requests fail, and -> serving. Any -> stopped, for good.
//
// Thread-safety: all functions may be called from any thread.

#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "core/base/mutex.h"
#include "core/base/result.h"
#include "tools/fuse/connection.h"

namespace obd::fuse {

class Link {
 public:
  using Clock = std::chrono::steady_clock;
  enum class Phase { serving, down, given_up, stopped };

  struct Options {
    Address address;
    bool read_only = false;    // nothing will be written, so an export may become read-only
    unsigned connections = 1;  // used as far as the export allows several
    std::optional<std::chrono::duration<double>> give_up_after;
    // A server that lives on after a connection to it broke is killed: somebody starts another.
    bool end_server = false;
  };

  // Connects, or says why it cannot: at the start there is no second try.
  static Result<std::unique_ptr<Link>> open(Options options);
  ~Link();

  // From now on a lost connection is made anew, by a thread that has the caller's signal mask.
  void start();

  [[nodiscard]] const Export& exported() const { return export_; }
  [[nodiscard]] unsigned connections() const { return static_cast<unsigned>(seats_.size()); }

  // ---- of the worker in that seat ----

  // Polls readable when there is something new to look() at.
  [[nodiscard]] int wake_fd(unsigned seat) const { return seats_[seat].wake.get(); }

  struct View {
    Phase phase;
    bool resend;                      // requests without a reply may be sent again
    std::optional<Connection> fresh;  // to use from now on; the worker has none at that time
  };
  // Also makes wake_fd quiet. When the phase is down, a worker that has a connection sends nothing
  // more, waits for the replies to what it has sent, closes it and calls release(); when it is
  // given_up, it does not wait.
  View look(unsigned seat);

  // The worker has closed its connection: it was broken, or look() asked for it.
  void release(unsigned seat);

  // ---- of all ----

  // Ends the link: workers keep their connections and end, nothing is made anew.
  void stop();
  // Polls readable once stop() has been called.
  [[nodiscard]] int stopped_fd() const { return stopped_.get(); }

 private:
  struct Seat {
    Descriptor wake;
    std::optional<Connection> fresh;
    bool holding = true;  // a connection, here or in the worker's hands
  };

  explicit Link(Options options);
  Result<std::vector<Connection>> connect_all(const std::function<bool()>& keep_trying);
  void hand_out(std::vector<Connection> connections) OBD_REQUIRES(mutex_);
  void set_phase(Phase phase) OBD_REQUIRES(mutex_);
  bool check_patience();
  bool pause();
  bool wait_for_release();
  bool wait_for_end_of_server();
  bool reconnect();
  void keep();

  const Options options_;
  Export export_;
  Descriptor stopped_;

  Mutex mutex_;
  Condition changed_;
  Phase phase_ OBD_GUARDED_BY(mutex_) = Phase::serving;
  std::vector<Seat> seats_;  // what they hold: under mutex_; the wake fds never change
  Clock::time_point lost_at_ OBD_GUARDED_BY(mutex_);

  // Of the server that the connections are or were to; changes only while no worker has one.
  bool resend_ = false;
  pid_t server_pid_ = 0;
  Descriptor server_pidfd_;

  std::thread keeper_;  // does the waiting and connecting
};

}  // namespace obd::fuse
