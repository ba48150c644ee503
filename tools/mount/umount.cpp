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
#include "tools/mount/arguments.h"
#include "tools/mount/command.h"

namespace obd::mount {
namespace {

struct UmountOptions {
  std::string target;
  std::string state_dir = attach::kDefaultStateDir;
  bool force = false;
};

// What a user's word can mean: the config file, the device, or the directory, without links.
struct Names {
  std::string path;    // the word itself
  std::string config;  // of the image, if it names one
};

Names names_of(const std::string& word) {
  FileSystem& fs = posix_file_system();
  Names names;
  // What is mounted there may be too broken to be looked at, and an image's files may be gone.
  std::error_code code;
  const auto absolute =
      std::filesystem::weakly_canonical(std::filesystem::absolute(word, code), code);
  names.path = fs.canonical(word).value_or(code ? word : absolute.string());
  if (const auto config = config_at(fs, word); config && *config != word) {
    names.config = fs.canonical(*config).value_or(*config);
  } else {
    names.config = fmt::format("{}/{}", names.path, kConfigName);  // of a folder that is gone
  }
  return names;
}

bool is_mounted_by_us(const attach::Attachment& attachment, const std::string& directory) {
  return std::ranges::any_of(attachment.mounts, [&](const attach::MountPoint& mount) {
    return mount.directory == directory;
  });
}

bool names(const Names& names, const attach::Attachment& attachment) {
  return attachment.image == names.config || attachment.image == names.path ||
         attachment.device == names.path || is_mounted_by_us(attachment, names.path);
}

Result<std::optional<std::string>> find_id(const std::string& state_dir, const Names& wanted) {
  OBD_TRY_ASSIGN(const auto ids, attach::list_ids(state_dir));
  std::optional<std::string> by_image;
  for (const std::string& id : ids) {
    const auto attachment = attach::look_at(attach::StatePaths(state_dir, id));
    if (!attachment || !*attachment || !names(wanted, **attachment)) continue;
    // A directory that is a mount point and an image's folder at once is the mount point.
    if (is_mounted_by_us(**attachment, wanted.path)) return id;
    by_image = id;
  }
  return by_image;
}

// Unmounts what this project has mounted; one that somebody else has unmounted is fine.
Result<void> unmount(attach::ImageState& state, attach::Attachment& attachment,
                     const std::string& directory, bool force) {
  OBD_TRY_ASSIGN(const std::string there, attach::device_mounted_on(directory));
  if (there == attachment.device) {
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
  } else if (const auto mounts = attach::find_mounts(attachment.device); mounts) {
    // Below something else that is mounted there, or in another mount namespace than ours.
    for (const attach::DeviceMount& mount : *mounts) {
      if (mount.directory != directory) continue;
      return fail(EBUSY, "{}: is not what is mounted on {} here: {}", attachment.device, directory,
                  there.empty() ? attach::describe_users(attachment.device)
                                : fmt::format("{} lies over it", there));
    }
  }
  std::erase_if(attachment.mounts,
                [&](const attach::MountPoint& mount) { return mount.directory == directory; });
  return state.save(attachment);
}

// Refuses while somebody else has mounted the device where we can see it: before anything is
// undone.
Result<void> refuse_foreign_mounts(const attach::Attachment& attachment) {
  const auto mounts = attach::find_mounts(attachment.device);
  if (!mounts) return {};  // no device, no mounts
  for (const attach::DeviceMount& mount : *mounts) {
    if (mount.process == 0 && !is_mounted_by_us(attachment, mount.directory)) {
      return fail(EBUSY, "{}: is in use: mounted on {}", attachment.device, mount.directory);
    }
  }
  return {};
}

Result<int> run_umount(const UmountOptions& options) {
  OBD_TRY(require_root());
  const Names wanted = names_of(options.target);
  OBD_TRY_ASSIGN(const auto id, find_id(options.state_dir, wanted));
  if (!id) {
    return fail(ENOTCONN, "{}: is not attached, as far as {} tells", options.target,
                options.state_dir);
  }
  OBD_TRY_ASSIGN(attach::ImageState state, attach::ImageState::lock_id(options.state_dir, *id));
  OBD_TRY_ASSIGN(auto attachment, state.load());
  // Somebody else may have been faster.
  if (!attachment || !names(wanted, *attachment)) {
    return fail(ENOTCONN, "{}: is not attached any more", options.target);
  }
  const bool one_directory = is_mounted_by_us(*attachment, wanted.path);
  if (one_directory) {
    OBD_TRY(unmount(state, *attachment, wanted.path, options.force));
    if (!attachment->mounts.empty() || attachment->held) return kExitSuccess;
  } else {
    OBD_TRY(refuse_foreign_mounts(*attachment));
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
