// obd-mount umount: undoes dev and dir.

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <optional>

#include "core/image/config.h"
#include "core/io/file.h"
#include "tools/attach/attach.h"
#include "tools/attach/block_device.h"
#include "tools/attach/file_system.h"
#include "tools/attach/traces.h"
#include "tools/mount/arguments.h"
#include "tools/mount/command.h"

namespace obd::mount {
namespace {

struct UmountOptions {
  std::string target;
  std::string state_dir = attach::kDefaultStateDir;
  bool force = false;
};

// What a user's word can mean, and what the kernel has to say of it.
struct Target {
  std::string word;
  std::string path;                             // without links, as far as there is something
  std::string config;                           // of the image, if it names one
  std::optional<attach::MountedThere> mounted;  // on it, if it names a directory
  dev_t device = 0;                             // if it names one
};

Result<Target> look_up(const std::string& word) {
  FileSystem& fs = posix_file_system();
  Target target;
  target.word = word;
  // What is mounted there may be too broken to be looked at, and an image's files may be gone.
  std::error_code code;
  const auto absolute =
      std::filesystem::weakly_canonical(std::filesystem::absolute(word, code), code);
  target.path = fs.canonical(word).value_or(code ? word : absolute.string());
  if (const auto config = config_at(fs, word); config && *config != word) {
    target.config = fs.canonical(*config).value_or(*config);
  } else {
    target.config = fmt::format("{}/{}", target.path, kConfigName);  // of a folder that is gone
  }
  OBD_TRY_ASSIGN(target.mounted, attach::mounted_on(target.path));
  target.device = attach::device_number(target.path).value_or(0);
  return target;
}

bool is_mounted_anywhere(const std::string& device, const std::string& directory) {
  const auto mounts = attach::find_mounts(device);
  return mounts && std::ranges::any_of(*mounts, [&](const attach::DeviceMount& mount) {
           return mount.directory == directory;
         });
}

// How a target names an attached image; what is greater is more certain. What the kernel shows
// decides before what is written down, which may be old: the directory may have been unmounted and
// the device's number given to others since.
enum class Match { none, image, directory, mounted_directory };

Match match(const Target& target, const attach::StatePaths& paths,
            const attach::Attachment& attachment) {
  const std::string device = attach::find_device(paths, attachment);
  const dev_t number = device.empty() ? 0 : attach::device_number(device).value_or(0);
  if (number != 0 && target.mounted && target.mounted->device == number) {
    return Match::mounted_directory;
  }
  if (attach::is_mounted_by_us(attachment, target.path) &&
      (!target.mounted || is_mounted_anywhere(device, target.path))) {
    return Match::directory;
  }
  if (attachment.image == target.config || attachment.image == target.path) return Match::image;
  if (target.device != 0 && target.device == number) return Match::image;
  // Its device has died, and nobody else has the number.
  if (number == 0 && attachment.device == target.path && !attach::is_taken(target.path)) {
    return Match::image;
  }
  return Match::none;
}

// An unreadable state may be the one that is looked for: it is told when no other one is.
Result<std::optional<std::string>> find_id(const std::string& state_dir, const Target& target) {
  OBD_TRY_ASSIGN(const auto ids, attach::list_ids(state_dir));
  std::optional<std::string> found;
  std::optional<Error> unreadable;
  Match best = Match::none;
  for (const std::string& id : ids) {
    const attach::StatePaths paths(state_dir, id);
    const auto attachment = attach::look_at(paths);
    if (!attachment) unreadable = attachment.error();
    if (!attachment || !*attachment) continue;
    const Match how = match(target, paths, **attachment);
    if (how <= best) continue;
    best = how;
    found = id;
  }
  if (!found && unreadable) return std::unexpected(std::move(*unreadable));
  return found;
}

// Unmounts what this project has mounted; one that somebody else has unmounted is fine.
Result<void> unmount(attach::ImageState& state, attach::Attachment& attachment,
                     const std::string& directory, bool force) {
  OBD_TRY_ASSIGN(const auto there, attach::mounted_on(directory));
  const std::string device = attach::find_device(state.paths(), attachment);
  const dev_t number = device.empty() ? 0 : attach::device_number(device).value_or(0);
  if (number != 0 && there && there->device == number) {
    // A dead device is told of when it is detached.
    if (!force && attach::is_alive(state.paths(), attachment)) {
      if (const auto synced = attach::sync_file_system(directory); !synced) {
        return fail(synced.error().code,
                    "{}; it stays mounted: mend the cause and write again what is missing, or use "
                    "--force and lose it",
                    synced.error().message);
      }
    }
    OBD_TRY(attach::unmount(directory));
  } else if (is_mounted_anywhere(device, directory)) {
    // Below something else that is mounted there, or in another mount namespace than ours.
    return fail(
        EBUSY, "{}: is not what is mounted on {} here: {}", device, directory,
        there ? fmt::format("{} lies over it", there->source) : attach::describe_users(device));
  }
  std::erase_if(attachment.mounts,
                [&](const attach::MountPoint& mount) { return mount.directory == directory; });
  // A directory too many in the state is as one that somebody else has unmounted.
  auto saved = state.save(attachment);
  if (!saved && attach::is_lack_of_space(saved.error())) return {};
  return saved;
}

// What there is of an image of which nothing is known; empty when nothing is, or when another call
// attaches or detaches it, which is waited for.
Result<std::string> traces_without_state(const std::string& state_dir, const std::string& id) {
  if (id.empty() || attach::find_traces(state_dir, id).empty()) return std::string();
  OBD_TRY_ASSIGN(attach::ImageState state, attach::ImageState::lock_id(state_dir, id));
  OBD_TRY_ASSIGN(const auto attachment, state.load());
  return attachment ? std::string() : attach::find_traces(state_dir, id);
}

// Nothing is known of the target: that is told, and is what the caller wants, unless there is
// something all the same. No image is locked.
Result<int> say_not_attached(const Target& target, const std::string& state_dir) {
  constexpr const char* kWhatToDo =
      "if its folder there was removed, unmount the disk, detach the device and kill the processes";
  if (target.mounted && !attach::attached_image_id(target.mounted->device).empty()) {
    return fail(EEXIST,
                "{}: {} is mounted there, of which {} tells nothing: name the --state-dir with "
                "which it was attached; {}",
                target.word, target.mounted->source, state_dir, kWhatToDo);
  }
  // A device may be of another state folder, and no concern of this one's.
  for (const std::string& id :
       {attach::image_id(target.config), attach::image_id(target.path),
        target.device != 0 ? attach::attached_image_id(target.device) : std::string()}) {
    OBD_TRY_ASSIGN(const std::string traces, traces_without_state(state_dir, id));
    if (traces.empty()) continue;
    return fail(EEXIST, "{}: {} tells nothing of it, but there is {}; {}", target.word, state_dir,
                traces, kWhatToDo);
  }
  complain(fmt::format("{}: is not attached, as far as {} tells", target.word, state_dir));
  return kExitNotAttached;
}

Result<int> run_umount(const UmountOptions& options) {
  OBD_TRY(require_root());
  OBD_TRY_ASSIGN(Target target, look_up(options.target));
  OBD_TRY_ASSIGN(const auto id, find_id(options.state_dir, target));
  if (!id) return say_not_attached(target, options.state_dir);
  auto taken = attach::ImageState::lock_id(options.state_dir, *id);
  if (!taken) return std::unexpected(std::move(taken).error());
  std::optional<attach::ImageState> locked(std::move(*taken));
  attach::ImageState& state = *locked;
  OBD_TRY_ASSIGN(auto attachment, state.load());
  // Somebody else may have been faster.
  OBD_TRY_ASSIGN(target, look_up(options.target));
  const Match how = attachment ? match(target, state.paths(), *attachment) : Match::none;
  if (how == Match::none) {
    locked.reset();
    return say_not_attached(target, options.state_dir);
  }
  if (how != Match::image) {
    OBD_TRY(unmount(state, *attachment, target.path, options.force));
    if (!attachment->mounts.empty() || attachment->held) return kExitSuccess;
  } else {
    OBD_TRY(attach::refuse_foreign_mounts(state.paths(), *attachment));
    while (!attachment->mounts.empty()) {
      const std::string directory = attachment->mounts.back().directory;
      OBD_TRY(unmount(state, *attachment, directory, options.force));
    }
  }
  OBD_TRY(attach::detach(state, *attachment, options.force));
  return kExitSuccess;
}

}  // namespace

void add_umount(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<UmountOptions>();
  CLI::App* command = app.add_subcommand("umount", "Undoes dev and dir");
  command->add_option("DIR|DEV|IMAGE", options->target, "What was mounted or attached")->required();
  command->add_flag("-f,--force", options->force,
                    "Detach even if what was written cannot be made stable any more");
  add_state_dir(*command, options->state_dir);
  command->footer(
      "Everything written is stable, and no device, process or file is left, when this returns.\n"
      "A directory is unmounted, and its image detached unless it is mounted elsewhere or\n"
      "`obd-mount dev` has handed out its device. A device or an image is unmounted everywhere\n"
      "and detached. What is in use stays as it is: exit status 5.\n\n"
      "Examples:\n"
      "  obd-mount umount /mnt\n"
      "  obd-mount umount /dev/nbd0\n"
      "  obd-mount umount disk");
  command->callback([options, &chosen] { chosen = [options] { return run_umount(*options); }; });
}

}  // namespace obd::mount
