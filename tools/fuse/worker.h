// One worker: an event loop of one thread, between the kernel's queue of FUSE requests and one
// connection to the server.
//
// A request is read from /dev/fuse, sent to the server at once and answered when its reply comes;
// nothing blocks between. When the connection is lost, requests without a reply keep their data and
// are sent again on the next one (link.h says why that is right). A worker stops reading
// /dev/fuse while its pool is exhausted; the kernel queues what comes meanwhile.
//
// Thread-safety: a worker's functions are called in its own thread only, except for the constructor
// and finish().

#pragma once

#include <fuse_lowlevel.h>

#include <optional>

#include "tools/fuse/link.h"
#include "tools/fuse/request_pool.h"

namespace obd::fuse {

class Worker {
 public:
  struct Options {
    size_t requests = 256;     // in flight at most
    size_t large_blocks = 32;  // of more than 32 KiB, of those
  };

  // `session` is mounted and its descriptor does not block; it and the link outlive the worker.
  static Result<std::unique_ptr<Worker>> create(fuse_session* session, Link& link, unsigned seat,
                                                Options options);
  ~Worker() = default;
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Works until the link is stopped; stops it when the disk is unmounted.
  void run();

  // After run(), to take leave of the server: flushes if `flush` says so.
  Result<void> finish(bool flush);

  // The worker whose run() this thread is in: libfuse hands its callbacks nothing of a thread's.
  static Worker& current();

  // ---- what FUSE's callbacks ask for; each answers `caller` sooner or later ----

  // Within the disk; at most RequestPool::kMaxData bytes, not 0.
  void read(fuse_req_t caller, uint64_t offset, uint32_t length);
  // The same, of whole blocks. `data` is where the request was read to.
  void write(fuse_req_t caller, const char* data, uint64_t offset, uint32_t length);
  void flush(fuse_req_t caller);
  // Zeroes of any length, of whole blocks, not 0. Gives the space back unless keep_space.
  void zero(fuse_req_t caller, uint64_t offset, uint64_t length, bool keep_space);

 private:
  Worker(fuse_session* session, Link& link, unsigned seat, Options options);
  static int completed(void* request, int* error) noexcept;

  void take_requests();
  Request& start(fuse_req_t caller, Request::Kind kind, uint64_t offset, uint64_t length);
  void send(Request& request);
  int64_t send_to_server(Request& request);
  void send_waiting();
  void complete(Request& request, int error);
  void answer(Request& request, int error);

  void look_at_link();
  void work_on_connection(uint32_t events);
  void lose_connection();
  void fail_waiting();
  void watch_fuse();
  void watch_connection();

  fuse_session* const session_;
  Link& link_;
  const unsigned seat_;
  const int fuse_fd_;
  Descriptor epoll_;
  RequestPool pool_;
  std::byte* receive_;  // the large block that /dev/fuse is read to; null when none is free

  std::optional<Connection> connection_;
  bool leaving_ = false;  // connection_ takes no more requests, and is given up after its replies
  bool broken_ = false;   // connection_ is given up now
  bool resend_ = false;
  size_t waiting_ = 0;  // requests in that state, and in that
  size_t sent_ = 0;
  Link::Phase phase_ = Link::Phase::down;
  bool fuse_watched_ = false;
  uint32_t connection_watched_ = 0;  // epoll's events
};

}  // namespace obd::fuse
