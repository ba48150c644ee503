// Connections to an NBD server for the test programs, on libnbd's asynchronous calls.
//
// Thread-safety: none; one thread drives all its connections through poll_connections(). Errors: a
// program that cannot go on says why on standard error and exits with status 1; the fate of a
// single request is told to its Request.

#pragma once

#include <fmt/format.h>
#include <libnbd.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

namespace obd::test {

[[noreturn]] void die_text(const std::string& sentence);

// Prints a sentence and ends the program with status 1.
template <typename... Args>
[[noreturn]] void die(fmt::format_string<Args...> format, Args&&... args) {
  die_text(fmt::format(format, std::forward<Args>(args)...));
}

// What a program keeps for each request in flight. It must outlive the request.
class Request {
 public:
  virtual ~Request() = default;

  // The request ended; error is an errno or 0, ENOTCONN or the like when the connection died under
  // it. Runs inside libnbd: no call on the same connection may be made from here.
  virtual void completed(int error) = 0;
};

struct NbdHandleCloser {
  void operator()(nbd_handle* handle) const { nbd_close(handle); }
};

class NbdConnection {
 public:
  // Connects, waiting for the end of the handshake.
  explicit NbdConnection(const std::string& uri);

  [[nodiscard]] nbd_handle* handle() const { return handle_.get(); }
  [[nodiscard]] uint64_t size() const { return size_; }  // of the disk, in bytes

  // False once the server has gone away; every request has been completed with an error by then.
  [[nodiscard]] bool alive() const;

  // Queue a request. Flags are libnbd's LIBNBD_CMD_FLAG_*. False when the connection is dead: then
  // the request was not sent, and completed() may or may not have been called.
  [[nodiscard]] bool read(std::span<std::byte> out, uint64_t offset, Request& request);
  [[nodiscard]] bool write(std::span<const std::byte> data, uint64_t offset, uint32_t flags,
                           Request& request);
  [[nodiscard]] bool zero(uint64_t offset, uint64_t length, uint32_t flags, Request& request);
  [[nodiscard]] bool trim(uint64_t offset, uint64_t length, uint32_t flags, Request& request);
  [[nodiscard]] bool flush(Request& request);

  // Reads and waits.
  void read_now(std::span<std::byte> out, uint64_t offset);

 private:
  [[nodiscard]] bool queued(int64_t cookie) const;

  std::unique_ptr<nbd_handle, NbdHandleCloser> handle_;
  uint64_t size_ = 0;
};

// Waits until some connection can go on, and lets every such one go on. Returns false when none of
// them is alive.
bool poll_connections(std::span<NbdConnection> connections);

}  // namespace obd::test
