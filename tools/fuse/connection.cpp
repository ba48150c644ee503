#include "tools/fuse/connection.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <bit>
#include <cerrno>

namespace obd::fuse {
namespace {

constexpr int kSliceMs = 100;
constexpr int64_t kLargestMinimumBlock = 64 << 10;  // the protocol's own limit
constexpr uint32_t kDefaultPreferredBlock = 4096;
constexpr uint32_t kDefaultMaximumBlock = 32U << 20;  // what the protocol lets clients assume

std::unexpected<Error> fail_nbd(const Address& address, std::string_view what) {
  const int code = nbd_get_errno() != 0 ? nbd_get_errno() : EIO;
  const char* text = nbd_get_error();
  return fail(code, "{}: {}: {}", address.text(), what, text != nullptr ? text : "unknown error");
}

}  // namespace

Result<void> check_replacement(const Export& old, const Export& now) {
  if (now.size != old.size) {
    return fail(EINVAL, "the export has {} bytes now and had {}", now.size, old.size);
  }
  const auto lost = [](const char* what) { return fail(EINVAL, "the export {} any more", what); };
  if (now.read_only && !old.read_only) return lost("cannot be written");
  if (old.can_flush && !now.can_flush) return lost("cannot flush");
  if (old.can_zero && !now.can_zero) return lost("cannot write zeroes");
  if (old.can_multi_conn && !now.can_multi_conn) return lost("does not take several connections");
  if (now.minimum_block > old.minimum_block || now.maximum_block < old.maximum_block) {
    return fail(EINVAL, "the export takes requests of {} to {} bytes now and took {} to {}",
                now.minimum_block, now.maximum_block, old.minimum_block, old.maximum_block);
  }
  return {};
}

bool has_ended(int pidfd, int timeout_ms) {
  pollfd item{.fd = pidfd, .events = POLLIN, .revents = 0};
  return ::poll(&item, 1, timeout_ms) > 0;
}

Result<Connection> Connection::open(const Address& address,
                                    const std::function<bool()>& keep_trying) {
  Connection connection;
  connection.handle_.reset(nbd_create());
  if (!connection.handle_) return fail_nbd(address, "cannot make a handle");
  OBD_TRY(connection.connect(address));
  connection.find_server();
  OBD_TRY(connection.negotiate(address, keep_trying));
  OBD_TRY(connection.look_at_export(address));
  // Whoever has answered is alive; if that process is not, then it only made the socket.
  if (connection.server_pidfd_ && has_ended(connection.server_pidfd_.get(), 0)) {
    connection.server_pidfd_ = Descriptor();
    connection.server_pid_ = 0;
  }
  return connection;
}

Result<void> Connection::connect(const Address& address) {
  nbd_handle* const nbd = handle();
  // Structured replies cost one more system call for each read, and nothing here needs them.
  // Clearing the buffer before a read is for programs that look at it after an error.
  if (nbd_set_request_structured_replies(nbd, false) < 0 ||
      nbd_set_pread_initialize(nbd, false) < 0) {
    return fail_nbd(address, "cannot set up");
  }
  const int status = address.socket.empty() ? nbd_aio_connect_uri(nbd, address.uri.c_str())
                                            : nbd_aio_connect_unix(nbd, address.socket.c_str());
  if (status < 0) return fail_nbd(address, "cannot connect");
  return {};
}

// Before the first answer: the process cannot have ended, and its number be another's, unnoticed.
void Connection::find_server() {
  ucred peer{};
  socklen_t length = sizeof peer;
  const int fd = nbd_aio_get_fd(handle());
  if (fd < 0 || ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return;
  if (peer.pid <= 0) return;
  server_pidfd_ = Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, peer.pid, 0)));
  if (server_pidfd_) server_pid_ = peer.pid;
}

Result<void> Connection::negotiate(const Address& address,
                                   const std::function<bool()>& keep_trying) {
  nbd_handle* const nbd = handle();
  while (nbd_aio_is_connecting(nbd) > 0) {
    const int status = nbd_poll(nbd, kSliceMs);
    if (status < 0) return fail_nbd(address, "cannot connect");
    if (status == 0 && !keep_trying()) {
      return fail(ETIMEDOUT, "{}: the server does not answer", address.text());
    }
  }
  if (nbd_aio_is_ready(nbd) <= 0) return fail_nbd(address, "cannot connect");
  return {};
}

Result<void> Connection::look_at_export(const Address& address) {
  nbd_handle* const nbd = handle();
  const int64_t size = nbd_get_size(nbd);
  if (size < 0) return fail_nbd(address, "the export has no size");
  export_.size = static_cast<uint64_t>(size);
  // These fail only without a connection.
  export_.read_only = nbd_is_read_only(nbd) > 0;
  export_.can_flush = nbd_can_flush(nbd) > 0;
  export_.can_zero = nbd_can_zero(nbd) > 0;
  export_.can_multi_conn = nbd_can_multi_conn(nbd) > 0;

  const int64_t minimum = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM);
  const int64_t preferred = nbd_get_block_size(nbd, LIBNBD_SIZE_PREFERRED);
  const int64_t maximum = nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM);
  const auto is_power = [](int64_t value) {
    return value > 0 && std::has_single_bit(static_cast<uint64_t>(value));
  };
  export_.minimum_block = 1;
  if (minimum > 0) {
    if (!is_power(minimum) || minimum > kLargestMinimumBlock || size % minimum != 0) {
      return fail(EPROTO,
                  "{}: the export's minimum block size {} does not fit its size {} or the protocol",
                  address.text(), minimum, size);
    }
    export_.minimum_block = static_cast<uint32_t>(minimum);
  }
  export_.preferred_block = is_power(preferred) && preferred >= 512 && preferred <= (1 << 20)
                                ? static_cast<uint32_t>(preferred)
                                : kDefaultPreferredBlock;
  export_.maximum_block = maximum > 0 && maximum < kDefaultMaximumBlock
                              ? static_cast<uint32_t>(maximum)
                              : kDefaultMaximumBlock;
  if (export_.maximum_block < export_.minimum_block) {
    return fail(EPROTO, "{}: the export's maximum block size {} is below its minimum {}",
                address.text(), maximum, minimum);
  }
  return {};
}

bool Connection::is_broken() const {
  return nbd_aio_is_dead(handle()) > 0 || nbd_aio_is_closed(handle()) > 0;
}

void Connection::leave() {
  if (!is_broken()) nbd_aio_disconnect(handle(), 0);
}

Result<void> Connection::finish(bool flush) {
  nbd_handle* const nbd = handle();
  if (flush && export_.can_flush && nbd_flush(nbd, 0) < 0) {
    return fail(EIO, "the last flush failed: {}", nbd_get_error());
  }
  if (nbd_shutdown(nbd, 0) < 0) return fail(EIO, "cannot disconnect: {}", nbd_get_error());
  return {};
}

}  // namespace obd::fuse
