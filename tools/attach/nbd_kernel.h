// The kernel's nbd driver, over generic netlink (linux/nbd-netlink.h).
//
// Ownership: owns its netlink socket. Thread-safety: none. Errors: EOPNOTSUPP when the kernel has
// no nbd; else the kernel's errno with what was asked of it.

#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "tools/attach/nbd_sockets.h"

struct nl_msg;
struct nl_sock;

namespace obd::attach {

// How the kernel is to treat the server's death and slowness.
struct NbdTimeouts {
  unsigned dead_connection = 0;  // seconds that requests wait for another connection; not 0
  unsigned request = 0;          // seconds after which a request counts as lost; 0: never
};

class NbdKernel {
 public:
  // Loads the module where it is missing and can be loaded.
  static Result<NbdKernel> open();

  // Makes a device of the sockets; returns its number, chosen by the kernel. `identifier` stays
  // with the device and must be repeated in reconnect().
  Result<unsigned> connect(const NbdSockets& sockets, const std::string& identifier,
                           const NbdTimeouts& timeouts);
  // Gives new sockets to a device whose own are dead.
  Result<void> reconnect(unsigned index, const NbdSockets& sockets, const std::string& identifier,
                         const NbdTimeouts& timeouts);
  // Ends the device whether it is in use or not.
  Result<void> disconnect(unsigned index);

  // From now on links_died() hears of this device's dead connections.
  Result<void> listen(unsigned index);
  [[nodiscard]] int fd() const;  // becomes readable then
  // How many connections of the device have died since the last call; never waits.
  Result<unsigned> links_died();

 private:
  struct Closer {
    void operator()(nl_sock* socket) const;
  };
  using Socket = std::unique_ptr<nl_sock, Closer>;
  struct Message;

  NbdKernel(Socket socket, int family) : socket_(std::move(socket)), family_(family) {}
  Result<void> ask(Message& message, const char* what);
  static int on_message(nl_msg* message, void* self);

  Socket socket_;
  int family_;
  int device_ = -1;  // the index in the last answer
  Socket events_;    // separate: an answer must never be taken for an event
  unsigned listened_ = 0;
  unsigned died_ = 0;
};

// The identifier that the kernel keeps with a device; empty when the device is not connected, or
// was connected without one.
std::string nbd_identifier(unsigned index);
bool nbd_is_connected(unsigned index);
std::string nbd_device_path(unsigned index);
// Of "/dev/nbdN".
Result<unsigned> nbd_index(const std::string& device);
// The device that carries this identifier: for what died before it could write down the index.
Result<std::string> find_nbd_device(const std::string& identifier);

}  // namespace obd::attach
