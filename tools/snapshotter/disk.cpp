#include "tools/snapshotter/disk.h"

#include <sys/mount.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include "core/io/file.h"
#include "tools/attach/attach.h"
#include "tools/attach/block_device.h"
#include "tools/attach/file_system.h"
#include "tools/snapshotter/labels.h"
#include "tools/snapshotter/log.h"

namespace obd::snapshotter {
namespace {

// Some programs look at a device for a moment.
constexpr auto kForPassersBy = std::chrono::seconds(3);
constexpr auto kPause = std::chrono::milliseconds(50);

attach::AttachRequest attach_request(const Config& config, const DiskRequest& request) {
  attach::AttachRequest wanted;
  wanted.image = request.image;
  if (config.backend == "nbd") wanted.backend = attach::Backend::nbd;
  if (config.backend == "fuse") wanted.backend = attach::Backend::fuse;
  wanted.read_only = request.read_only;
  wanted.server.max_upper_size = request.quota;
  wanted.plugin = config.plugin;
  return wanted;
}

// Who writes to a disk chooses what is found there, and the host has drivers for file systems that
// nobody has looked after for long.
Result<std::string> file_system_of(const Config& config, const std::string& image,
                                   const std::string& device, const FileSystemHint& hint) {
  if (!hint.type.empty()) return hint.type;
  OBD_TRY_ASSIGN(std::string type, attach::probe_file_system(device));
  if (type.empty()) return fail(EIO, "{}: its disk holds no file system", image);
  if (!is_mountable(type) && type != config.default_fs_type) {
    return fail(EOPNOTSUPP, "{}: its disk holds a file system of type {}, which is not mounted",
                image, type);
  }
  return type;
}

std::vector<std::string> options_for(const std::string& fstype, bool read_only,
                                     const FileSystemHint& hint) {
  auto options = attach::default_options(fstype, read_only);
  for (const std::string& option : hint.mount_options) {
    if (std::ranges::find(options, option) == options.end()) options.push_back(option);
  }
  // A disk says itself what is to happen after an error: a panic of the host, if it likes.
  if (fstype == "ext2" || fstype == "ext3" || fstype == "ext4") {
    options.emplace_back("errors=remount-ro");
  }
  return options;
}

// The kernel's number of the image's device; 0: there is none.
dev_t device_of(const attach::ImageState& state, const attach::Attachment& attachment) {
  const std::string device = attach::find_device(state.paths(), attachment);
  return device.empty() ? 0 : attach::device_number(device).value_or(0);
}

enum class There { nothing, this_image, something_else };

Result<There> what_is_mounted(const attach::ImageState& state, const attach::Attachment& attachment,
                              const std::string& directory) {
  OBD_TRY_ASSIGN(const auto mounted, attach::mounted_on(directory));
  if (!mounted) return There::nothing;
  const dev_t device = device_of(state, attachment);
  return device != 0 && mounted->device == device ? There::this_image : There::something_else;
}

// The error, after taking down what was attached for nothing.
std::unexpected<Error> give_up(attach::ImageState& state, attach::Attached& attached, Error error) {
  if (attached.is_new) {
    if (const auto undone = attach::detach(state, attached.attachment, true); !undone) {
      error.message += fmt::format("; and could not be undone: {}", undone.error().message);
    }
  }
  return std::unexpected(std::move(error));
}

Result<void> forget_mount(attach::ImageState& state, attach::Attachment& attachment,
                          const std::string& directory) {
  std::erase_if(attachment.mounts, [&](const auto& mount) { return mount.directory == directory; });
  // A directory too many in the state is as one that somebody else has unmounted.
  auto saved = state.save(attachment);
  if (!saved && attach::is_lack_of_space(saved.error())) return {};
  return saved;
}

Result<void> mount_attached(const Config& config, attach::ImageState& state,
                            attach::Attachment& attachment, const std::string& directory,
                            bool read_only, const FileSystemHint& hint) {
  OBD_TRY_ASSIGN(const std::string fstype,
                 file_system_of(config, attachment.image, attachment.device, hint));
  const auto options = options_for(fstype, read_only, hint);
  // Written down first: whoever dies after the mount leaves nothing unknown behind.
  if (!attach::is_mounted_by_us(attachment, directory)) {
    attachment.mounts.push_back({.directory = directory, .fstype = fstype, .options = options});
    OBD_TRY(state.save(attachment));
  }
  const auto mounted = attach::mount_device(
      {.device = attachment.device, .directory = directory, .fstype = fstype, .options = options});
  if (mounted) return {};
  OBD_TRY(forget_mount(state, attachment, directory));
  return mounted;
}

Result<void> unmount_attached(attach::ImageState& state, attach::Attachment& attachment,
                              const std::string& directory, Release content) {
  OBD_TRY_ASSIGN(const There there, what_is_mounted(state, attachment, directory));
  if (there == There::this_image) {
    if (content == Release::keep_content && attach::is_alive(state.paths(), attachment)) {
      OBD_TRY(attach::sync_file_system(directory));
    }
    OBD_TRY(attach::unmount(directory));
  }
  return forget_mount(state, attachment, directory);
}

Result<void> release_attached(attach::ImageState& state, attach::Attachment& attachment,
                              Release content) {
  OBD_TRY(attach::refuse_foreign_mounts(state.paths(), attachment));
  while (!attachment.mounts.empty()) {
    const std::string directory = attachment.mounts.back().directory;
    OBD_TRY(unmount_attached(state, attachment, directory, content));
  }
  return attach::detach(state, attachment, content == Release::discard_content);
}

// What a committed image was attached as while it was written to, and could not be released from,
// gives way as soon as it is not in use any more.
Result<attach::Attached> attach_again(attach::ImageState& state,
                                      const attach::AttachRequest& request) {
  auto attached = attach::attach(state, request);
  if (attached || attached.error().code != EEXIST) return attached;
  OBD_TRY_ASSIGN(auto old, state.load());
  if (!old) return attached;
  const auto released = release_attached(state, *old, Release::keep_content);
  if (released) return attach::attach(state, request);
  // In use still, and frozen: it shows what it would if it were attached anew.
  if (released.error().code != EBUSY || !request.read_only)
    return std::unexpected(released.error());
  return attach::Attached{.attachment = std::move(*old), .is_new = false};
}

}  // namespace

Result<DeviceMount> Disks::attach(const DiskRequest& request, const FileSystemHint& hint) const {
  OBD_TRY_ASSIGN(attach::ImageState state,
                 attach::ImageState::lock(config_.state_dir, request.image));
  OBD_TRY_ASSIGN(attach::Attached attached, attach_again(state, attach_request(config_, request)));
  attach::Attachment& attachment = attached.attachment;
  const auto fstype = file_system_of(config_, attachment.image, attachment.device, hint);
  if (!fstype) return give_up(state, attached, fstype.error());
  if (!std::exchange(attachment.held, true)) {
    if (auto saved = state.save(attachment); !saved) return give_up(state, attached, saved.error());
  }
  return DeviceMount{.device = attachment.device,
                     .fstype = *fstype,
                     .options = options_for(*fstype, request.read_only, hint)};
}

Result<void> Disks::mount(const DiskRequest& request, const std::string& directory,
                          const FileSystemHint& hint) const {
  OBD_TRY_ASSIGN(attach::ImageState state,
                 attach::ImageState::lock(config_.state_dir, request.image));
  auto attached = attach_again(state, attach_request(config_, request));
  OBD_TRY(attached);
  OBD_TRY_ASSIGN(const There there, what_is_mounted(state, attached->attachment, directory));
  if (there == There::this_image) return {};
  if (there == There::something_else) {
    return give_up(state, *attached,
                   Error{EBUSY, fmt::format("{}: something else is mounted there", directory)});
  }
  const auto mounted =
      mount_attached(config_, state, attached->attachment, directory, request.read_only, hint);
  if (!mounted) return give_up(state, *attached, mounted.error());
  return {};
}

Result<void> Disks::unmount(const std::string& image, const std::string& directory) const {
  OBD_TRY_ASSIGN(attach::ImageState state, attach::ImageState::lock(config_.state_dir, image));
  OBD_TRY_ASSIGN(auto attachment, state.load());
  if (!attachment || !attach::is_mounted_by_us(*attachment, directory)) return {};
  return unmount_attached(state, *attachment, directory, Release::keep_content);
}

Result<void> Disks::refuse_raw_use(const std::string& image) const {
  OBD_TRY_ASSIGN(attach::ImageState state, attach::ImageState::lock(config_.state_dir, image));
  OBD_TRY_ASSIGN(const auto attachment, state.load());
  const std::string device =
      attachment ? attach::find_device(state.paths(), *attachment) : std::string();
  if (device.empty()) return {};
  const auto deadline = std::chrono::steady_clock::now() + kForPassersBy;
  while (true) {
    // Who has mounted it where this host can see it shares the file system with us.
    const auto mounts = attach::find_mounts(device);
    if (mounts && !mounts->empty()) return {};
    const std::string users = attach::describe_users(device);
    if (users.empty()) return {};
    if (std::chrono::steady_clock::now() > deadline) {
      return fail(EBUSY, "{}, the disk of {}, is in use: {}", device, image, users);
    }
    std::this_thread::sleep_for(kPause);
  }
}

Result<void> Disks::freeze(const std::string& directory) const {
  OBD_TRY(attach::sync_file_system(directory));
  // Of the file system, not of this mount alone.
  if (::mount("none", directory.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) == 0) {
    return attach::sync_file_system(directory);
  }
  if (errno == EBUSY) {
    const std::string users = attach::describe_users_of_mount(directory);
    return fail(EBUSY, "{}: a file in it is open for writing{}{}", directory,
                users.empty() ? "" : ", perhaps by ", users);
  }
  return fail_errno(errno, "{}: cannot be made read-only", directory);
}

Result<void> Disks::thaw(const std::string& directory) const {
  if (::mount("none", directory.c_str(), nullptr, MS_REMOUNT, nullptr) == 0) return {};
  return fail_errno(errno, "{}: cannot be made writable again", directory);
}

Result<void> Disks::release(const std::string& image, Release content) const {
  OBD_TRY_ASSIGN(attach::ImageState state, attach::ImageState::lock(config_.state_dir, image));
  OBD_TRY_ASSIGN(auto attachment, state.load());
  if (!attachment) return {};
  return release_attached(state, *attachment, content);
}

Result<std::vector<std::string>> Disks::recover(const std::string& folder) const {
  OBD_TRY(attach::check_state_dir(config_.state_dir));
  OBD_TRY_ASSIGN(const auto ids, attach::list_ids(config_.state_dir));
  std::vector<std::string> images;
  const auto is_foreign = [&](const Result<std::optional<attach::Attachment>>& seen) {
    return seen && *seen && !(*seen)->image.starts_with(folder + "/");
  };
  for (const std::string& id : ids) {
    if (is_foreign(attach::look_at(attach::StatePaths(config_.state_dir, id)))) continue;
    auto state = attach::ImageState::lock_id(config_.state_dir, id);
    if (!state) {
      log_error("{}", state.error().message);
      continue;
    }
    // Without an attachment, somebody had only begun: there may be a folder to remove.
    if (is_foreign(state->load())) continue;
    const auto done = attach::recover(*state);
    if (!done) {
      log_error("{}", done.error().message);
    } else if (!done->empty()) {
      log_info("{}", *done);
    }
    if (const auto left = state->load(); left && *left) images.push_back((*left)->image);
  }
  return images;
}

uint64_t Disks::count(const std::string& folder) const {
  uint64_t number = 0;
  const auto ids = attach::list_ids(config_.state_dir);
  if (!ids) return 0;
  for (const std::string& id : *ids) {
    const auto seen = attach::look_at(attach::StatePaths(config_.state_dir, id));
    if (seen && *seen && (*seen)->image.starts_with(folder + "/")) ++number;
  }
  return number;
}

}  // namespace obd::snapshotter
