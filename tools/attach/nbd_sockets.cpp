#include "tools/attach/nbd_sockets.h"

#include <libnbd.h>
#include <linux/nbd.h>

#include <cerrno>
#include <utility>

namespace obd::attach {
namespace {

std::unexpected<Error> nbd_failure(const std::string& socket_path) {
  const int code = nbd_get_errno();
  const char* const words = nbd_get_error();
  return fail(code != 0 ? code : EIO, "{}: {}", socket_path, words != nullptr ? words : "failed");
}

}  // namespace

void NbdSockets::Closer::operator()(nbd_handle* handle) const { nbd_close(handle); }

Result<NbdSockets::Handle> NbdSockets::connect_one(const std::string& socket_path) {
  Handle handle(nbd_create());
  if (!handle) return nbd_failure(socket_path);
  if (nbd_set_request_structured_replies(handle.get(), false) == -1 ||
      nbd_connect_unix(handle.get(), socket_path.c_str()) == -1) {
    return nbd_failure(socket_path);
  }
  return handle;
}

Result<NbdSockets> NbdSockets::connect(const std::string& socket_path, unsigned count) {
  NbdSockets sockets;
  OBD_TRY_ASSIGN(Handle first, connect_one(socket_path));
  const int64_t size = nbd_get_size(first.get());
  if (size < 0) return nbd_failure(socket_path);
  sockets.size_ = static_cast<uint64_t>(size);
  sockets.flags_ = NBD_FLAG_HAS_FLAGS;
  constexpr std::pair<int (*)(nbd_handle*), int> kFlags[] = {
      {nbd_is_read_only, NBD_FLAG_READ_ONLY},
      {nbd_can_flush, NBD_FLAG_SEND_FLUSH},
      {nbd_can_fua, NBD_FLAG_SEND_FUA},
      {nbd_can_trim, NBD_FLAG_SEND_TRIM},
      {nbd_can_multi_conn, NBD_FLAG_CAN_MULTI_CONN}};
  for (const auto& [asked, flag] : kFlags) {
    const int answer = asked(first.get());
    if (answer < 0) return nbd_failure(socket_path);
    if (answer > 0) sockets.flags_ |= static_cast<uint64_t>(flag);
  }
  sockets.handles_.push_back(std::move(first));
  if ((sockets.flags_ & NBD_FLAG_CAN_MULTI_CONN) == 0) count = 1;
  while (sockets.handles_.size() < count) {
    OBD_TRY_ASSIGN(Handle handle, connect_one(socket_path));
    sockets.handles_.push_back(std::move(handle));
  }
  return sockets;
}

std::vector<int> NbdSockets::fds() const {
  std::vector<int> fds;
  for (const Handle& handle : handles_) fds.push_back(nbd_aio_get_fd(handle.get()));
  return fds;
}

}  // namespace obd::attach
