#include "test/e2e/nbd_client.h"

#include <poll.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace obd::test {

namespace {

nbd_completion_callback completion_of(Request& request) {
  nbd_completion_callback callback = {};
  callback.callback = [](void* user_data, int* error) {
    static_cast<Request*>(user_data)->completed(*error);
    return 1;  // retire the command: nobody will ask for its result again
  };
  callback.user_data = &request;
  return callback;
}

void let_go_on(nbd_handle* handle, short events) {
  // A reply comes before a further request, so that buffers do not fill on both sides. A hang-up is
  // learnt by reading, too. The results are not needed: a failure shows as a dead connection.
  const unsigned direction = nbd_aio_get_direction(handle);
  if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0 && (events & (POLLIN | POLLHUP | POLLERR)) != 0)
    (void)nbd_aio_notify_read(handle);
  else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0 &&
           (events & (POLLOUT | POLLHUP | POLLERR)) != 0)
    (void)nbd_aio_notify_write(handle);
}

}  // namespace

void die_text(const std::string& sentence) {
  fmt::print(stderr, "{}\n", sentence);
  std::exit(EXIT_FAILURE);
}

NbdConnection::NbdConnection(const std::string& uri) : handle_(nbd_create()) {
  if (!handle_) die("{}", nbd_get_error());
  if (nbd_connect_uri(handle_.get(), uri.c_str()) == -1) die("{}: {}", uri, nbd_get_error());
  const int64_t size = nbd_get_size(handle_.get());
  if (size < 0) die("{}: {}", uri, nbd_get_error());
  size_ = static_cast<uint64_t>(size);
}

bool NbdConnection::alive() const {
  return nbd_aio_is_dead(handle_.get()) == 0 && nbd_aio_is_closed(handle_.get()) == 0;
}

bool NbdConnection::queued(int64_t cookie) const {
  if (cookie != -1) return true;
  if (alive()) die("libnbd refused a request: {}", nbd_get_error());
  return false;
}

bool NbdConnection::read(std::span<std::byte> out, uint64_t offset, Request& request) {
  return queued(nbd_aio_pread(handle_.get(), out.data(), out.size(), offset, completion_of(request),
                              /*flags=*/0));
}

bool NbdConnection::write(std::span<const std::byte> data, uint64_t offset, uint32_t flags,
                          Request& request) {
  return queued(nbd_aio_pwrite(handle_.get(), data.data(), data.size(), offset,
                               completion_of(request), flags));
}

bool NbdConnection::zero(uint64_t offset, uint64_t length, uint32_t flags, Request& request) {
  return queued(nbd_aio_zero(handle_.get(), length, offset, completion_of(request), flags));
}

bool NbdConnection::trim(uint64_t offset, uint64_t length, uint32_t flags, Request& request) {
  return queued(nbd_aio_trim(handle_.get(), length, offset, completion_of(request), flags));
}

bool NbdConnection::flush(Request& request) {
  return queued(nbd_aio_flush(handle_.get(), completion_of(request), /*flags=*/0));
}

void NbdConnection::read_now(std::span<std::byte> out, uint64_t offset) {
  if (nbd_pread(handle_.get(), out.data(), out.size(), offset, /*flags=*/0) == -1)
    die("reading {} bytes at {}: {}", out.size(), offset, nbd_get_error());
}

bool poll_connections(std::span<NbdConnection> connections) {
  std::vector<pollfd> descriptors(connections.size());
  bool any = false;
  for (size_t i = 0; i < connections.size(); ++i) {
    descriptors[i] = {.fd = -1, .events = 0, .revents = 0};
    if (!connections[i].alive()) continue;
    any = true;
    nbd_handle* handle = connections[i].handle();
    descriptors[i].fd = nbd_aio_get_fd(handle);
    const unsigned direction = nbd_aio_get_direction(handle);
    if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0) descriptors[i].events |= POLLIN;
    if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) descriptors[i].events |= POLLOUT;
  }
  if (!any) return false;
  while (poll(descriptors.data(), descriptors.size(), /*timeout=*/-1) == -1)
    if (errno != EINTR) die("poll: {}", std::strerror(errno));
  for (size_t i = 0; i < connections.size(); ++i)
    if (descriptors[i].fd != -1 && descriptors[i].revents != 0)
      let_go_on(connections[i].handle(), descriptors[i].revents);
  return true;
}

}  // namespace obd::test
