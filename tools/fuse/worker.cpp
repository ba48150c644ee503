#include "tools/fuse/worker.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tools/fuse/say.h"

namespace obd::fuse {
namespace {

enum Source : uint32_t { from_fuse, from_server, from_link };

// How many requests are taken before replies are looked at again.
constexpr int kBatch = 64;
// The protocol's lengths have 32 bits, and a server should not be busy with one request for long.
constexpr uint64_t kLargestZero = uint64_t{1} << 30;

thread_local Worker* current_worker = nullptr;

bool watch(const Descriptor& epoll, int operation, int fd, uint32_t events, Source source) {
  epoll_event event{};
  event.events = events;
  event.data.u32 = source;
  return ::epoll_ctl(epoll.get(), operation, fd, &event) == 0;
}

}  // namespace

Worker& Worker::current() { return *current_worker; }

Worker::Worker(fuse_session* session, Link& link, unsigned seat, Options options)
    : session_(session),
      link_(link),
      seat_(seat),
      fuse_fd_(fuse_session_fd(session)),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      pool_(*this, options.requests, options.large_blocks),
      receive_(pool_.take_large()) {}

Result<std::unique_ptr<Worker>> Worker::create(fuse_session* session, Link& link, unsigned seat,
                                               Options options) {
  std::unique_ptr<Worker> worker(new Worker(session, link, seat, options));
  if (!worker->epoll_ ||
      !watch(worker->epoll_, EPOLL_CTL_ADD, link.wake_fd(seat), EPOLLIN, from_link)) {
    return fail_errno(errno, "cannot set up a worker's epoll");
  }
  return worker;
}

void Worker::run() {
  current_worker = this;
  while (phase_ != Link::Phase::stopped) {
    watch_fuse();
    watch_connection();
    epoll_event events[3];
    const int count = ::epoll_wait(epoll_.get(), events, 3, -1);
    for (int i = 0; i < count; ++i) {
      switch (events[i].data.u32) {
        case from_link:
          look_at_link();
          break;
        case from_server:
          if (connection_) work_on_connection(events[i].events);
          break;
        case from_fuse:
          take_requests();
          break;
        default:
          break;
      }
    }
    if (broken_ || (leaving_ && sent_ == 0)) lose_connection();
    if (waiting_ > 0) send_waiting();
  }
  current_worker = nullptr;
}

Result<void> Worker::finish(bool flush) {
  if (!connection_) return fail(ENOTCONN, "there was no server when the disk was unmounted");
  return connection_->finish(flush);
}

// ---- from the kernel ----

void Worker::take_requests() {
  for (int i = 0; i < kBatch && receive_ != nullptr && pool_.has_request(); ++i) {
    const ssize_t size = ::read(fuse_fd_, receive_, RequestPool::kLargeSize);
    if (size < 0) {
      if (errno == EAGAIN) return;
      // ENOENT: the request was interrupted before it was read.
      if (errno == EINTR || errno == ENOENT) continue;
      if (errno != ENODEV) say("cannot read /dev/fuse: {}", std::strerror(errno));
      fuse_session_exit(session_);
      link_.stop();
      return;
    }
    fuse_buf buffer{};
    buffer.size = static_cast<size_t>(size);
    buffer.mem = receive_;
    fuse_session_process_buf(session_, &buffer);
    if (receive_ == nullptr) receive_ = pool_.take_large();
  }
}

Request& Worker::start(fuse_req_t caller, Request::Kind kind, uint64_t offset, uint64_t length) {
  Request& request = pool_.take();
  ++waiting_;
  request.kind = kind;
  request.caller = caller;
  request.offset = offset;
  request.length = length;
  return request;
}

void Worker::read(fuse_req_t caller, uint64_t offset, uint32_t length) {
  const uint64_t block = link_.exported().minimum_block;
  const uint64_t begin = offset / block * block;
  const uint64_t end = (offset + length + block - 1) / block * block;
  Request& request = start(caller, Request::Kind::read, begin, end - begin);
  request.skip = static_cast<uint32_t>(offset - begin);
  request.wanted = length;
  request.data = request.small;
  if (request.length > RequestPool::kSmallSize) {
    request.large = request.data = std::exchange(receive_, nullptr);
  }
  send(request);
}

void Worker::write(fuse_req_t caller, const char* data, uint64_t offset, uint32_t length) {
  Request& request = start(caller, Request::Kind::write, offset, length);
  request.wanted = length;
  if (length <= RequestPool::kSmallSize) {
    request.data = request.small;
    std::memcpy(request.small, data, length);
  } else {
    // It lies in receive_.
    request.data = const_cast<std::byte*>(reinterpret_cast<const std::byte*>(data));
    request.large = std::exchange(receive_, nullptr);
  }
  send(request);
}

void Worker::flush(fuse_req_t caller) { send(start(caller, Request::Kind::flush, 0, 0)); }

void Worker::zero(fuse_req_t caller, uint64_t offset, uint64_t length, bool keep_space) {
  Request& request = start(caller, Request::Kind::zero, offset, length);
  request.keep_space = keep_space;
  send(request);
}

// ---- to the server ----

// Of a waiting request. Without a connection it goes on waiting.
void Worker::send(Request& request) {
  if (!connection_ || leaving_ || broken_) return;
  // From here on it may be answered and given back at any time.
  request.state = Request::State::sent;
  --waiting_;
  ++sent_;
  if (send_to_server(request) >= 0) return;
  const int error = nbd_get_errno();
  if (connection_->is_broken()) {
    broken_ = true;
  } else {
    --sent_;
    answer(request, error != 0 ? error : EIO);
  }
}

int64_t Worker::send_to_server(Request& request) {
  nbd_handle* const nbd = connection_->handle();
  const nbd_completion_callback callback{
      .callback = &Worker::completed, .user_data = &request, .free = nullptr};
  const uint64_t zero_length = std::min(request.length, kLargestZero);
  switch (request.kind) {
    case Request::Kind::read:
      return nbd_aio_pread(nbd, request.data, request.length, request.offset, callback, 0);
    case Request::Kind::write:
      return nbd_aio_pwrite(nbd, request.data, request.length, request.offset, callback, 0);
    case Request::Kind::flush:
      return nbd_aio_flush(nbd, callback, 0);
    case Request::Kind::zero:
      return nbd_aio_zero(nbd, zero_length, request.offset, callback,
                          request.keep_space ? LIBNBD_CMD_FLAG_NO_HOLE : 0);
  }
  return -1;
}

void Worker::send_waiting() {
  if (phase_ == Link::Phase::given_up) return fail_waiting();
  if (!connection_ || leaving_ || broken_) return;
  for (Request& request : pool_.all()) {
    if (request.state == Request::State::waiting) send(request);
  }
}

// libnbd calls this with the handle locked: nothing more can be sent from here.
int Worker::completed(void* request, int* error) noexcept {
  auto& done = *static_cast<Request*>(request);
  done.worker->complete(done, *error);
  return 1;
}

void Worker::complete(Request& request, int error) {
  // libnbd's own, for what has no reply.
  if (error == ENOTCONN) {
    broken_ = true;
    return;
  }
  --sent_;
  // The server is about to end. It gets nothing more, but may still answer what it has begun.
  if (error == ESHUTDOWN) {
    leaving_ = true;
    request.state = Request::State::waiting;
    ++waiting_;
    return;
  }
  if (error == 0 && request.kind == Request::Kind::zero && request.length > kLargestZero) {
    request.offset += kLargestZero;
    request.length -= kLargestZero;
    request.state = Request::State::waiting;
    ++waiting_;
    return;
  }
  answer(request, error);
}

// That the caller has gone meanwhile, the only way in which these fail, is no concern of ours.
void Worker::answer(Request& request, int error) {
  if (error != 0) {
    fuse_reply_err(request.caller, error);
  } else if (request.kind == Request::Kind::read) {
    fuse_reply_buf(request.caller, reinterpret_cast<const char*>(request.data) + request.skip,
                   request.wanted);
  } else if (request.kind == Request::Kind::write) {
    fuse_reply_write(request.caller, request.wanted);
  } else {
    fuse_reply_err(request.caller, 0);
  }
  pool_.give_back(request);
  if (receive_ == nullptr) receive_ = pool_.take_large();
}

// ---- the connection ----

void Worker::work_on_connection(uint32_t events) {
  nbd_handle* const nbd = connection_->handle();
  const unsigned direction = nbd_aio_get_direction(nbd);
  if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0 && (events & ~uint32_t{EPOLLOUT}) != 0) {
    // libnbd stops after each reply. Those that have come meanwhile need no call of epoll each.
    size_t before = 0;
    int replies = 0;
    do {
      before = sent_;
      nbd_aio_notify_read(nbd);
    } while (sent_ != before && sent_ != 0 && !broken_ && ++replies < kBatch &&
             nbd_aio_get_direction(nbd) == LIBNBD_AIO_DIRECTION_READ);
  } else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) {
    nbd_aio_notify_write(nbd);
  }
  if (connection_->is_broken()) broken_ = true;
}

void Worker::look_at_link() {
  Link::View view = link_.look(seat_);
  phase_ = view.phase;
  if (view.fresh) {
    connection_ = std::move(view.fresh);
    resend_ = view.resend;
    connection_watched_ = 0;
  } else if (phase_ == Link::Phase::down) {
    leaving_ = connection_.has_value();
  } else if (phase_ == Link::Phase::given_up) {
    broken_ = connection_.has_value();
  }
}

void Worker::lose_connection() {
  leaving_ = broken_ = false;
  // Closing takes the socket out of the epoll set, and libnbd forgets the requests.
  connection_->leave();
  connection_.reset();
  for (Request& request : pool_.all()) {
    if (request.state != Request::State::sent) continue;
    if (resend_) {
      request.state = Request::State::waiting;
      ++waiting_;
    } else {
      answer(request, EIO);
    }
  }
  sent_ = 0;
  link_.release(seat_);
}

void Worker::fail_waiting() {
  for (Request& request : pool_.all()) {
    if (request.state == Request::State::waiting) answer(request, EIO);
  }
  waiting_ = 0;
}

// ---- what to wait for ----

// Exclusive, so that a request wakes one worker and not all; such an entry cannot be modified.
void Worker::watch_fuse() {
  const bool wanted = receive_ != nullptr && pool_.has_request();
  if (wanted == fuse_watched_) return;
  const int operation = wanted ? EPOLL_CTL_ADD : EPOLL_CTL_DEL;
  if (watch(epoll_, operation, fuse_fd_, EPOLLIN | EPOLLEXCLUSIVE, from_fuse)) {
    fuse_watched_ = wanted;
  }
}

void Worker::watch_connection() {
  if (!connection_) return;
  const unsigned direction = nbd_aio_get_direction(connection_->handle());
  uint32_t events = 0;
  if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0) events |= EPOLLIN;
  if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) events |= EPOLLOUT;
  if (events == connection_watched_) return;
  const int operation = connection_watched_ == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  if (watch(epoll_, operation, nbd_aio_get_fd(connection_->handle()), events, from_server)) {
    connection_watched_ = events;
  }
}

}  // namespace obd::fuse
