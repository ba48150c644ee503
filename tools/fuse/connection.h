// One connection to an NBD server, what the export is like, and which process the server is.
//
// Thread-safety: a Connection belongs to one thread at a time.

#pragma once

#include <libnbd.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/base/result.h"
#include "core/io/descriptor.h"

namespace obd::fuse {

// Where the server is: one of the two is empty.
struct Address {
  std::string socket;  // path of a Unix socket
  std::string uri;
  [[nodiscard]] const std::string& text() const { return socket.empty() ? uri : socket; }
};

struct Export {
  uint64_t size = 0;             // bytes
  uint32_t minimum_block = 1;    // requests are multiples of it; a power of two, 64 KiB at most
  uint32_t preferred_block = 0;  // a power of two
  uint32_t maximum_block = 0;    // of a read or write, bytes
  bool read_only = false;
  bool can_flush = false;
  bool can_zero = false;
  bool can_multi_conn = false;  // a flush on one connection covers all
};

// Whether requests made for `old` may go to `now`: the same disk size, and all that `old` could do.
Result<void> check_replacement(const Export& old, const Export& now);

class Connection {
 public:
  // Connects and negotiates. Asks `keep_trying` every 100 ms or so, and fails with ETIMEDOUT when
  // that says no.
  static Result<Connection> open(const Address& address, const std::function<bool()>& keep_trying);

  // libnbd's handle, connected without blocking; of use with the nbd_aio_* calls.
  [[nodiscard]] nbd_handle* handle() const { return handle_.get(); }
  [[nodiscard]] const Export& exported() const { return export_; }

  // The process at the other end, and a pidfd of it, which polls readable once the process has
  // ended. 0 and none when it cannot be known: over TCP, from another pid namespace, and when the
  // process that made the socket has ended, as that of a server that went to the background has.
  [[nodiscard]] pid_t server_pid() const { return server_pid_; }
  [[nodiscard]] int server_pidfd() const { return server_pidfd_.get(); }

  // Whether the connection is beyond use.
  [[nodiscard]] bool is_broken() const;

  // Tells the server, if there is one, that no more comes.
  void leave();

  // Flushes if `flush` says so and the export can, and takes leave of the server.
  Result<void> finish(bool flush);

 private:
  struct Closer {
    void operator()(nbd_handle* handle) const { nbd_close(handle); }
  };

  Result<void> connect(const Address& address);
  void find_server();
  Result<void> negotiate(const Address& address, const std::function<bool()>& keep_trying);
  Result<void> look_at_export(const Address& address);

  std::unique_ptr<nbd_handle, Closer> handle_;
  Descriptor server_pidfd_;
  pid_t server_pid_ = 0;
  Export export_;
};

// Whether the process of a pidfd has ended; waits up to so many milliseconds for it.
bool has_ended(int pidfd, int timeout_ms);

}  // namespace obd::fuse
