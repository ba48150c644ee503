// Connections to an NBD server, negotiated and handed over: to the kernel, which goes on with the
// transmission phase by itself.
//
// Ownership: the sockets are closed with the object; the kernel keeps references of its own.
// Thread-safety: none. Errors: libnbd's words.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/base/result.h"

struct nbd_handle;

namespace obd::attach {

class NbdSockets {
 public:
  // Opens up to `count` connections; one when the server does not promise that all its connections
  // see the same disk. Structured replies are off: the kernel does not speak them.
  static Result<NbdSockets> connect(const std::string& socket_path, unsigned count);

  [[nodiscard]] uint64_t size() const { return size_; }    // bytes
  [[nodiscard]] uint64_t flags() const { return flags_; }  // NBD_FLAG_* of linux/nbd.h
  [[nodiscard]] std::vector<int> fds() const;

 private:
  struct Closer {
    void operator()(nbd_handle* handle) const;
  };
  using Handle = std::unique_ptr<nbd_handle, Closer>;
  static Result<Handle> connect_one(const std::string& socket_path);

  std::vector<Handle> handles_;
  uint64_t size_ = 0;
  uint64_t flags_ = 0;
};

}  // namespace obd::attach
