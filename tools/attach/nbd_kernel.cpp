#include "tools/attach/nbd_kernel.h"

#include <linux/nbd-netlink.h>
#include <linux/nbd.h>
#include <netlink/errno.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "core/io/file.h"
#include "tools/obd/program.h"

namespace obd::attach {
namespace {

constexpr std::string_view kDevicePrefix = "/dev/nbd";
constexpr uint64_t kBlockSize = 512;  // what the layers address; file systems ask for more

// libnl's error numbers are its own; those that stand for a system call's are told apart by name.
int errno_of(int netlink_error) {
  switch (-netlink_error) {
    case NLE_NOMEM:
      return ENOMEM;
    case NLE_PERM:
      return EPERM;
    case NLE_NOACCESS:
      return EACCES;
    case NLE_BUSY:
      return EBUSY;
    case NLE_NODEV:
      return ENODEV;
    case NLE_OBJ_NOTFOUND:
      return ENOENT;
    case NLE_INVAL:
      return EINVAL;
    default:
      return EIO;
  }
}

bool load_module() {
  const auto modprobe = tool::find_program("modprobe");
  if (!modprobe) return false;
  const auto status =
      tool::run_program({*modprobe, "--quiet", "nbd"}, tool::ProgramOutput::discarded);
  return status && *status == 0;
}

}  // namespace

// One request, built attribute by attribute.
struct NbdKernel::Message {
  explicit Message(int family, uint8_t command) : message(nlmsg_alloc()) {
    failed = message == nullptr ||
             genlmsg_put(message, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, command, 0) == nullptr;
  }
  ~Message() { nlmsg_free(message); }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;

  void put_u32(int attribute, uint32_t value) {
    failed = failed || nla_put_u32(message, attribute, value) != 0;
  }
  void put_u64(int attribute, uint64_t value) {
    failed = failed || nla_put_u64(message, attribute, value) != 0;
  }
  void put_text(int attribute, const std::string& text) {
    failed = failed || nla_put_string(message, attribute, text.c_str()) != 0;
  }
  void put_timeouts(const NbdTimeouts& timeouts) {
    put_u64(NBD_ATTR_DEAD_CONN_TIMEOUT, timeouts.dead_connection);
    // 0 too: the number may have been another device's, whose timeout is still in its queue.
    put_u64(NBD_ATTR_TIMEOUT, timeouts.request);
  }
  void put_sockets(const NbdSockets& sockets) {
    nlattr* const list = failed ? nullptr : nla_nest_start(message, NBD_ATTR_SOCKETS);
    failed = list == nullptr;
    for (const int fd : sockets.fds()) {
      nlattr* const item = failed ? nullptr : nla_nest_start(message, NBD_SOCK_ITEM);
      failed = item == nullptr;
      put_u32(NBD_SOCK_FD, static_cast<uint32_t>(fd));
      if (!failed) nla_nest_end(message, item);
    }
    if (!failed) nla_nest_end(message, list);
  }

  nl_msg* message;
  bool failed = false;
};

void NbdKernel::Closer::operator()(nl_sock* socket) const { nl_socket_free(socket); }

Result<NbdKernel> NbdKernel::open() {
  Socket socket(nl_socket_alloc());
  if (!socket) return fail(ENOMEM, "no memory for a netlink socket");
  if (const int code = genl_connect(socket.get()); code < 0) {
    return fail(errno_of(code), "cannot use generic netlink: {}", nl_geterror(code));
  }
  int family = genl_ctrl_resolve(socket.get(), NBD_GENL_FAMILY_NAME);
  if (family < 0 && load_module()) {
    family = genl_ctrl_resolve(socket.get(), NBD_GENL_FAMILY_NAME);
  }
  if (family < 0) {
    return fail(EOPNOTSUPP,
                "this kernel has no nbd: load the module (modprobe nbd), or use --backend fuse");
  }
  return NbdKernel(std::move(socket), family);
}

int NbdKernel::on_message(nl_msg* message, void* self_pointer) {
  auto* const self = static_cast<NbdKernel*>(self_pointer);
  auto* const header = static_cast<genlmsghdr*>(nlmsg_data(nlmsg_hdr(message)));
  nlattr* attributes[NBD_ATTR_MAX + 1] = {};
  if (nla_parse(attributes, NBD_ATTR_MAX, genlmsg_attrdata(header, 0), genlmsg_attrlen(header, 0),
                nullptr) != 0 ||
      attributes[NBD_ATTR_INDEX] == nullptr) {
    return NL_OK;
  }
  const uint32_t index = nla_get_u32(attributes[NBD_ATTR_INDEX]);
  if (header->cmd == NBD_CMD_CONNECT) self->device_ = static_cast<int>(index);
  if (header->cmd == NBD_CMD_LINK_DEAD && index == self->listened_) ++self->died_;
  return NL_OK;
}

Result<void> NbdKernel::ask(Message& message, const char* what) {
  if (message.failed) return fail(ENOMEM, "nbd {}: no memory for the request", what);
  nl_socket_modify_cb(socket_.get(), NL_CB_VALID, NL_CB_CUSTOM, on_message, this);
  int code = nl_send_auto(socket_.get(), message.message);
  // An answer with attributes comes before the acknowledgement, and goes to on_message().
  if (code >= 0) code = nl_wait_for_ack(socket_.get());
  if (code < 0) return fail(errno_of(code), "nbd {}: {}", what, nl_geterror(code));
  return {};
}

Result<unsigned> NbdKernel::connect(const NbdSockets& sockets, const std::string& identifier,
                                    const NbdTimeouts& timeouts) {
  Message message(family_, NBD_CMD_CONNECT);
  message.put_u64(NBD_ATTR_SIZE_BYTES, sockets.size());
  message.put_u64(NBD_ATTR_BLOCK_SIZE_BYTES, kBlockSize);
  message.put_u64(NBD_ATTR_SERVER_FLAGS, sockets.flags());
  message.put_u64(NBD_ATTR_CLIENT_FLAGS, 0);
  message.put_text(NBD_ATTR_BACKEND_IDENTIFIER, identifier);
  message.put_timeouts(timeouts);
  message.put_sockets(sockets);
  device_ = -1;
  OBD_TRY(ask(message, "connect"));
  if (device_ < 0) return fail(EIO, "nbd connect: the kernel did not say which device");
  return static_cast<unsigned>(device_);
}

Result<void> NbdKernel::reconnect(unsigned index, const NbdSockets& sockets,
                                  const std::string& identifier, const NbdTimeouts& timeouts) {
  Message message(family_, NBD_CMD_RECONFIGURE);
  message.put_u32(NBD_ATTR_INDEX, index);
  message.put_text(NBD_ATTR_BACKEND_IDENTIFIER, identifier);
  message.put_timeouts(timeouts);
  message.put_sockets(sockets);
  return ask(message, "reconnect");
}

Result<void> NbdKernel::disconnect(unsigned index) {
  Message message(family_, NBD_CMD_DISCONNECT);
  message.put_u32(NBD_ATTR_INDEX, index);
  return ask(message, "disconnect");
}

Result<void> NbdKernel::listen(unsigned index) {
  events_.reset(nl_socket_alloc());
  if (!events_) return fail(ENOMEM, "no memory for a netlink socket");
  listened_ = index;
  nl_socket_disable_seq_check(events_.get());
  int code = genl_connect(events_.get());
  if (code >= 0) {
    code = genl_ctrl_resolve_grp(events_.get(), NBD_GENL_FAMILY_NAME, NBD_GENL_MCAST_GROUP_NAME);
  }
  if (code >= 0) code = nl_socket_add_membership(events_.get(), code);
  if (code >= 0) code = nl_socket_set_nonblocking(events_.get());
  if (code < 0) return fail(errno_of(code), "cannot listen to nbd: {}", nl_geterror(code));
  return {};
}

int NbdKernel::fd() const { return nl_socket_get_fd(events_.get()); }

Result<unsigned> NbdKernel::links_died() {
  nl_socket_modify_cb(events_.get(), NL_CB_VALID, NL_CB_CUSTOM, on_message, this);
  died_ = 0;
  int code = 0;
  while (code >= 0) code = nl_recvmsgs_default(events_.get());
  // -NLE_NOMEM: events were lost because nobody listened for long; one more is as good as many.
  if (code == -NLE_NOMEM) ++died_;
  if (code != -NLE_AGAIN && code != -NLE_INTR && code != -NLE_NOMEM) {
    return fail(errno_of(code), "cannot hear from nbd: {}", nl_geterror(code));
  }
  return died_;
}

// ---- what the kernel shows in files ----

std::string nbd_identifier(unsigned index) {
  const auto text =
      read_whole(posix_file_system(), fmt::format("/sys/block/nbd{}/backend", index), 4096);
  if (!text || !nbd_is_connected(index)) return "";
  return text->substr(0, text->find('\n'));
}

bool nbd_is_connected(unsigned index) {
  std::error_code ignored;
  return std::filesystem::exists(fmt::format("/sys/block/nbd{}/pid", index), ignored);
}

std::string nbd_device_path(unsigned index) { return fmt::format("{}{}", kDevicePrefix, index); }

Result<unsigned> nbd_index(const std::string& device) {
  unsigned index = 0;
  if (device.starts_with(kDevicePrefix)) {
    const char* const end = device.data() + device.size();
    const auto [stop, code] = std::from_chars(device.data() + kDevicePrefix.size(), end, index);
    if (code == std::errc() && stop == end) return index;
  }
  return fail(EINVAL, "{}: is no nbd device", device);
}

Result<std::string> find_nbd_device(const std::string& identifier) {
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/block", code)) {
    const auto index = nbd_index("/dev/" + entry.path().filename().string());
    if (index && nbd_identifier(*index) == identifier) return nbd_device_path(*index);
  }
  return fail(ENODEV, "no nbd device is {}", identifier);
}

}  // namespace obd::attach
