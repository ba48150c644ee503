// The order of things, which is what makes this safe:
//
//   up     state "attaching", server, device, first read, state "attached", supervisor
//   down   claim of the device (nobody else uses it, nobody else can), flush, state "detaching",
//          supervisor, device, front end, server, state removed
//
// The state is written before the first thing exists and removed after the last has gone, so
// whatever exists can be found: processes by the records that they write themselves, an nbd device
// and devices by an identifier, which the kernel keeps with them. The server gets its SIGTERM last:
// nbdkit answers ESHUTDOWN from then on.

#include "tools/attach/attach.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <thread>
#include <utility>

#include "core/base/uuid.h"
#include "core/io/file.h"
#include "tools/attach/block_device.h"
#include "tools/attach/front_end.h"
#include "tools/attach/loop_device.h"
#include "tools/attach/nbd_kernel.h"
#include "tools/attach/nbd_sockets.h"
#include "tools/attach/server.h"
#include "tools/attach/supervisor.h"
#include "tools/attach/traces.h"
#include "tools/obd/interrupt.h"

namespace obd::attach {
namespace {

using namespace std::chrono_literals;

constexpr auto kForDeviceToGo = 30s;
constexpr auto kForPassersBy = 2s;
constexpr auto kForForcedFlush = 10s;
constexpr auto kForKilled = 5s;
constexpr auto kForServerToClose = 60s;  // it makes everything stable once more
constexpr auto kPause = 5ms;

Result<Backend> choose_backend(const std::optional<Backend>& wanted) {
  if (wanted) return *wanted;
  const auto kernel = NbdKernel::open();
  if (kernel) return Backend::nbd;
  if (kernel.error().code != EOPNOTSUPP) return std::unexpected(kernel.error());
  if (::access("/dev/fuse", R_OK | W_OK) == 0 && ::access("/dev/loop-control", R_OK | W_OK) == 0) {
    return Backend::fuse;
  }
  return fail(EOPNOTSUPP,
              "this host can make no block device: its kernel has no nbd (modprobe nbd), and "
              "/dev/fuse or /dev/loop-control is missing; obd-mount doctor tells more");
}

// One for the kernel: with several, it takes a request that is 30 seconds old for lost although its
// server lives, and sends it again on another connection. Should the server then carry out the
// first one late, it would overwrite what has been written since.
unsigned default_connections(Backend backend) {
  return backend == Backend::nbd ? 1 : std::clamp(std::thread::hardware_concurrency(), 1U, 4U);
}

// A server that refuses a client tells it next to nothing; why is in its log.
Result<uint64_t> served_size(const StatePaths& paths) {
  const auto sockets = NbdSockets::connect(paths.socket, 1);
  if (sockets) return sockets->size();
  const std::string words = last_words(paths.server_log);
  if (words.empty()) return std::unexpected(sockets.error());
  return fail(sockets.error().code, "{}", words);
}

Result<std::string> connect_nbd(const StatePaths& paths, const Attachment& attachment) {
  OBD_TRY_ASSIGN(NbdKernel kernel, NbdKernel::open());
  OBD_TRY_ASSIGN(const NbdSockets sockets,
                 NbdSockets::connect(paths.socket, attachment.connections));
  OBD_TRY_ASSIGN(const unsigned index, kernel.connect(sockets, attachment.identifier,
                                                      {.dead_connection = attachment.dead_timeout,
                                                       .request = attachment.request_timeout}));
  return nbd_device_path(index);
}

Result<std::string> connect_fuse(const StatePaths& paths, const Attachment& attachment) {
  OBD_TRY(start_front_end(paths, attachment));
  return attach_loop(paths.disk, attachment.identifier, attachment.read_only);
}

Result<void> bring_up(ImageState& state, Attachment& attachment) {
  const StatePaths& paths = state.paths();
  OBD_TRY(state.save(attachment));
  OBD_TRY(start_server(paths, attachment));
  OBD_TRY(tool::check_interrupt());
  OBD_TRY_ASSIGN(const uint64_t size, served_size(paths));
  if (size == 0) return fail(EINVAL, "{}: its disk has no size", attachment.image);
  OBD_TRY_ASSIGN(attachment.device, attachment.backend == Backend::nbd
                                        ? connect_nbd(paths, attachment)
                                        : connect_fuse(paths, attachment));
  OBD_TRY(state.save(attachment));
  // Everything later rests on finding it again.
  if (find_device(paths, attachment) != attachment.device) {
    return fail(EIO, "{}: the kernel does not show it as this image's", attachment.device);
  }
  OBD_TRY(wait_until_usable(attachment.device, size));
  OBD_TRY(tool::check_interrupt());
  return {};
}

bool has_server(const StatePaths& paths) {
  const auto server = read_process_record(paths.server_record);
  return server && *server && is_running(**server);
}

bool has_front_end(const StatePaths& paths) {
  const auto front_end = read_process_record(paths.front_end_record);
  return front_end && *front_end && is_running(**front_end);
}

// udevd and the like open a device for a moment whenever it changes.
Result<DeviceClaim> claim_soon(const std::string& device) {
  const auto deadline = std::chrono::steady_clock::now() + kForPassersBy;
  while (true) {
    auto claim = DeviceClaim::take(device);
    if (claim || claim.error().code != EBUSY || std::chrono::steady_clock::now() > deadline) {
      return claim;
    }
    std::this_thread::sleep_for(50ms);
  }
}

Result<void> remove_device(const Attachment& attachment, const std::string& device) {
  // Asked again right before: the number may be somebody else's by now.
  if (attachment.backend == Backend::fuse) {
    return loop_mark(device) == attachment.identifier ? detach_loop(device) : Result<void>();
  }
  OBD_TRY_ASSIGN(NbdKernel kernel, NbdKernel::open());
  OBD_TRY_ASSIGN(const unsigned index, nbd_index(device));
  if (nbd_identifier(index) != attachment.identifier) return {};
  return kernel.disconnect(index);
}

Result<void> wait_until_gone(const StatePaths& paths, const Attachment& attachment,
                             const std::string& device) {
  const auto deadline = std::chrono::steady_clock::now() + kForDeviceToGo;
  while (!find_device(paths, attachment).empty()) {
    if (std::chrono::steady_clock::now() > deadline) {
      const std::string users = describe_users(device);
      return fail(EBUSY, "{}: does not go away{}{}", device, users.empty() ? "" : ": ", users);
    }
    std::this_thread::sleep_for(kPause);
  }
  return {};
}

// Everything but the device, which is gone.
Result<void> end_processes(const StatePaths& paths, const Attachment& attachment) {
  OBD_TRY(stop_supervisor(paths));
  if (attachment.backend == Backend::fuse) OBD_TRY(stop_front_end(paths));
  OBD_TRY_ASSIGN(const auto server, read_process_record(paths.server_record));
  if (server) OBD_TRY(end_process(*server, SIGTERM, kForServerToClose));
  return {};
}

enum class Flush {
  not_needed,   // or not possible any more
  needed,       // else nothing is taken down
  if_it_works,  // within kForForcedFlush; what hangs after that is killed
};

bool ends_within(pid_t child, std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (::waitpid(child, nullptr, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(kPause);
  }
  return true;
}

// In a process of its own: one that waits for a server that hangs cannot be interrupted, and keeps
// the device open. The value is that process, if it hangs.
std::optional<pid_t> flush_if_it_works(const DeviceClaim& claim) {
  const pid_t child = ::fork();
  if (child == 0) {
    // Nothing else of its parent's: files and locks of other threads would live on with it.
    const auto kept = static_cast<unsigned>(claim.fd());
    if (kept > 0) ::close_range(0, kept - 1, 0);
    ::close_range(kept + 1, ~0U, 0);
    ::_exit(claim.flush() ? 0 : 1);
  }
  if (child < 0 || ends_within(child, kForForcedFlush)) return std::nullopt;
  return child;
}

// Requests that nobody will answer any more fail once the front end is dead, or, with nbd, once the
// device is disconnected.
Result<void> end_what_hangs(const StatePaths& paths, Backend backend, pid_t flusher) {
  if (backend == Backend::fuse) {
    OBD_TRY_ASSIGN(const auto front_end, read_process_record(paths.front_end_record));
    if (front_end) OBD_TRY(end_process(*front_end, SIGKILL, kForKilled));
    ends_within(flusher, kForKilled);
  }
  OBD_TRY_ASSIGN(const auto server, read_process_record(paths.server_record));
  if (server) OBD_TRY(end_process(*server, SIGKILL, kForKilled));
  return {};
}

Result<void> take_device_down(ImageState& state, Attachment& attachment, const std::string& device,
                              Flush flush) {
  const StatePaths& paths = state.paths();
  OBD_TRY_ASSIGN(DeviceClaim claim, claim_soon(device));
  if (flush == Flush::needed) OBD_TRY(claim.flush());
  std::optional<pid_t> hanging;
  if (flush == Flush::if_it_works) hanging = flush_if_it_works(claim);
  attachment.phase = Phase::detaching;
  // Without space for it, or while it is forced, the old state has to do: it names all there is.
  if (auto saved = state.save(attachment);
      !saved && flush == Flush::needed && !is_lack_of_space(saved.error())) {
    return saved;
  }
  // Before the device: it would connect it again.
  OBD_TRY(stop_supervisor(paths));
  if (hanging) OBD_TRY(end_what_hangs(paths, attachment.backend, *hanging));
  // Somebody may have opened it without a claim of his own, and written, since it was flushed.
  if (flush == Flush::needed) {
    OBD_TRY(claim.check_unused());
    OBD_TRY(claim.flush());
  }
  OBD_TRY(remove_device(attachment, device));
  {
    const DeviceClaim end = std::move(claim);
  }
  return wait_until_gone(paths, attachment, device);
}

Result<void> take_down(ImageState& state, Attachment& attachment, Flush flush) {
  const StatePaths& paths = state.paths();
  if (const std::string device = find_device(paths, attachment); !device.empty()) {
    if (auto gone = take_device_down(state, attachment, device, flush); !gone) {
      // What is still there goes on being looked after.
      if (is_alive(paths, attachment)) {
        static_cast<void>(ensure_supervisor(directory_of(paths.folder), paths));
      }
      return gone;
    }
  }
  OBD_TRY(end_processes(paths, attachment));
  return state.remove();
}

// A failure to undo is told after what went wrong first.
std::unexpected<Error> undo(ImageState& state, Attachment& attachment, Error error) {
  const auto undone = take_down(state, attachment, Flush::if_it_works);
  if (!undone)
    error.message += fmt::format("; and could not be undone: {}", undone.error().message);
  return std::unexpected(std::move(error));
}

Result<bool> was_attached_since_boot(const Attachment& attachment) {
  OBD_TRY_ASSIGN(const std::string boot_id, posix_file_system().boot_id());
  return attachment.boot_id == boot_id;
}

// Makes room for a new attachment where an old one is dead. nullopt: there is none any more.
Result<std::optional<Attachment>> settle(ImageState& state) {
  OBD_TRY_ASSIGN(auto found, state.load());
  if (!found) {
    const StatePaths& paths = state.paths();
    if (const std::string traces = find_traces(directory_of(paths.folder), paths.id);
        !traces.empty()) {
      return fail(EEXIST,
                  "{}: is missing, but there is {}: unmount and detach the disk and kill the "
                  "processes before the image can be attached again",
                  paths.attachment, traces);
    }
    OBD_TRY(state.remove());
    return std::nullopt;
  }
  OBD_TRY_ASSIGN(const bool is_of_this_boot, was_attached_since_boot(*found));
  if (!is_of_this_boot) {  // nothing of it can be left
    OBD_TRY(state.remove());
    return std::nullopt;
  }
  if (found->phase == Phase::attached && is_alive(state.paths(), *found)) return found;
  const auto down = take_down(state, *found, Flush::not_needed);
  if (down) return std::nullopt;
  // Interrupted while it was detached, and in use again or still: then it stays.
  if (down.error().code == EBUSY && is_alive(state.paths(), *found)) {
    found->phase = Phase::attached;
    found->device = find_device(state.paths(), *found);
    OBD_TRY(state.save(*found));
    return found;
  }
  return std::unexpected(down.error());
}

}  // namespace

std::string find_device(const StatePaths& paths, const Attachment& attachment) {
  auto device = attachment.backend == Backend::nbd
                    ? find_nbd_device(attachment.identifier)
                    : find_loop_device(paths.disk, attachment.identifier);
  return device ? std::move(*device) : std::string();
}

bool is_alive(const StatePaths& paths, const Attachment& attachment) {
  if (find_device(paths, attachment).empty()) return false;
  return attachment.backend == Backend::nbd || has_front_end(paths);
}

std::string find_plugin() {
  std::error_code code;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", code);
  const auto built = self.parent_path().parent_path() / "lib" / "nbdkit-overlaybd-plugin.so";
  return !code && std::filesystem::exists(built, code) ? built.string() : "overlaybd";
}

Result<Attached> attach(ImageState& state, const AttachRequest& request) {
  const std::string state_dir = directory_of(state.paths().folder);
  OBD_TRY_ASSIGN(auto existing, settle(state));
  if (existing) {
    if (existing->read_only != request.read_only) {
      return fail(EEXIST, "{}: is attached {} as {}; detach it first", request.image,
                  existing->read_only ? "read-only" : "for writing", existing->device);
    }
    OBD_TRY(ensure_supervisor(state_dir, state.paths()));
    return Attached{.attachment = std::move(*existing), .is_new = false};
  }
  Attachment attachment;
  attachment.image = request.image;
  OBD_TRY_ASSIGN(attachment.backend, choose_backend(request.backend));
  attachment.read_only = request.read_only;
  attachment.connections =
      request.connections != 0 ? request.connections : default_connections(attachment.backend);
  attachment.server = request.server;
  attachment.dead_timeout = request.dead_timeout;
  attachment.request_timeout = request.request_timeout;
  attachment.plugin = request.plugin.empty() ? find_plugin() : request.plugin;
  attachment.identifier =
      fmt::format("{}{}:{}", kIdentifierPrefix, state.paths().id, Uuid::random().text());
  OBD_TRY_ASSIGN(attachment.boot_id, posix_file_system().boot_id());
  if (auto up = bring_up(state, attachment); !up) return undo(state, attachment, up.error());
  attachment.phase = Phase::attached;
  if (auto saved = state.save(attachment); !saved) return undo(state, attachment, saved.error());
  if (auto watched = start_supervisor(state_dir, state.paths(), Links::alive); !watched) {
    return undo(state, attachment, watched.error());
  }
  return Attached{.attachment = std::move(attachment), .is_new = true};
}

Result<void> detach(ImageState& state, Attachment& attachment, bool force) {
  const StatePaths& paths = state.paths();
  OBD_TRY_ASSIGN(const bool is_of_this_boot, was_attached_since_boot(attachment));
  if (!is_of_this_boot) return state.remove();  // nothing else of it can be left
  OBD_TRY_ASSIGN(const ServerStatus status, server_status(paths));
  // Flushing would wait for a server that does not come back.
  if (status.given_up && !has_server(paths) && !force) {
    return fail(EIO,
                "{}: its server does not run any more ({}); mend that and run `obd-mount recover`, "
                "or use --force and lose what was not written",
                attachment.image, status.last_words);
  }
  if (force) return take_down(state, attachment, Flush::if_it_works);
  const std::string device = find_device(paths, attachment);
  if (device.empty()) return take_down(state, attachment, Flush::not_needed);
  if (!is_alive(paths, attachment)) {
    return fail(EIO,
                "{}: {} is dead: what had not been synced when its front end died is lost; detach "
                "it with --force",
                attachment.image, device);
  }
  return take_down(state, attachment, Flush::needed);
}

Result<std::string> recover(ImageState& state) {
  const StatePaths& paths = state.paths();
  const std::string state_dir = directory_of(paths.folder);
  OBD_TRY_ASSIGN(const auto before, state.load());
  if (before && before->phase == Phase::attached && before->backend == Backend::fuse &&
      !has_front_end(paths)) {
    const std::string device = find_device(paths, *before);
    const std::string users = device.empty() ? std::string() : describe_users(device);
    if (!users.empty()) {
      return fail(EBUSY,
                  "{}: {} is broken, its front end has died, and it is {}; unmount it, then "
                  "run this again",
                  before->image, device, users);
    }
  }
  OBD_TRY_ASSIGN(const auto after, settle(state));
  if (!after && !before) return std::string();  // somebody had only begun
  if (!after) {
    OBD_TRY_ASSIGN(const bool is_of_this_boot, was_attached_since_boot(*before));
    return fmt::format("{}: took down what was left of it{}", before->image,
                       before->phase == Phase::attached && is_of_this_boot
                           ? "; what had not been synced is lost"
                           : "");
  }
  if (is_supervised(paths)) return std::string();
  OBD_TRY(ensure_supervisor(state_dir, paths));
  return fmt::format("{}: {} is supervised again", after->image, after->device);
}

bool is_mounted_by_us(const Attachment& attachment, const std::string& directory) {
  return std::ranges::any_of(attachment.mounts,
                             [&](const MountPoint& mount) { return mount.directory == directory; });
}

Result<void> refuse_foreign_mounts(const StatePaths& paths, const Attachment& attachment) {
  const std::string device = find_device(paths, attachment);
  const auto mounts = find_mounts(device);
  if (!mounts) return {};  // no device, no mounts
  for (const DeviceMount& mount : *mounts) {
    if (mount.process == 0 && !is_mounted_by_us(attachment, mount.directory)) {
      return fail(EBUSY, "{}, the disk of {}, is in use: mounted on {}", device, attachment.image,
                  mount.directory);
    }
  }
  return {};
}

}  // namespace obd::attach
