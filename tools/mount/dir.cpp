// obd-mount dir: attaches an image and mounts it on a directory.

#include <algorithm>
#include <cerrno>
#include <memory>
#include <sstream>

#include "core/image/config.h"
#include "core/io/file.h"
#include "tools/attach/block_device.h"
#include "tools/attach/file_system.h"
#include "tools/mount/arguments.h"
#include "tools/mount/command.h"
#include "tools/mount/mount_list.h"
#include "tools/obd/common.h"

namespace obd::mount {
namespace {

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> words;
  std::istringstream stream(text);
  for (std::string word; std::getline(stream, word, ',');) {
    if (!word.empty()) words.push_back(word);
  }
  return words;
}

std::vector<std::string> mount_options(const AttachArguments& arguments, const std::string& fstype,
                                       const std::string& asked) {
  std::vector<std::string> options = split(asked);
  if (asked.empty()) options = attach::default_options(fstype, arguments.read_only);
  if (arguments.read_only && std::ranges::find(options, "ro") == options.end()) {
    options.emplace_back("ro");
  }
  // Last, so that nothing before it wins.
  if (arguments.untrusted) {
    const auto more = attach::untrusted_options(fstype);
    options.insert(options.end(), more.begin(), more.end());
  }
  return options;
}

// Whoever looked for the image's files by their names would find the mounted file system instead,
// and the next server is one who does.
Result<void> refuse_to_hide_files(const AttachedImage& image, const std::string& directory) {
  FileSystem& fs = posix_file_system();
  std::vector<std::string> files = {image.attachment.image, image.state.paths().folder};
  OBD_TRY_ASSIGN(const ImageConfig config, load_config(fs, image.attachment.image));
  files.insert(files.end(), config.lowers.begin(), config.lowers.end());
  if (config.upper) files.insert(files.end(), {config.upper->data, config.upper->index});
  for (const std::string& file : files) {
    OBD_TRY_ASSIGN(const std::string real, fs.canonical(file));
    if (real.starts_with(directory == "/" ? "/" : directory + "/")) {
      return fail(EINVAL, "{}: cannot be mounted on: {} lies in it and would be hidden", directory,
                  real);
    }
  }
  return {};
}

// False: it was mounted there already.
Result<bool> mount_image(AttachedImage& image, const AttachArguments& arguments,
                         const std::string& directory, const std::string& asked_options) {
  OBD_TRY_ASSIGN(const auto there, attach::mounted_on(directory));
  OBD_TRY_ASSIGN(const dev_t device, attach::device_number(image.attachment.device));
  if (there && there->device == device) return false;
  if (there) return fail(EBUSY, "{}: {} is mounted there", directory, there->source);
  OBD_TRY(refuse_to_hide_files(image, directory));
  OBD_TRY_ASSIGN(const std::string fstype, image.file_system(arguments));
  if (fstype.empty()) {
    return fail(EINVAL,
                "{}: holds no file system: make one with --mkfs, or say the type with --fstype",
                image.attachment.image);
  }
  const attach::MountPoint mount{.directory = directory,
                                 .fstype = fstype,
                                 .options = mount_options(arguments, fstype, asked_options)};
  // Written down first: whoever dies after the mount leaves nothing unknown behind.
  image.attachment.mounts.push_back(mount);
  OBD_TRY(image.state.save(image.attachment));
  const auto mounted = attach::mount_device({.device = image.attachment.device,
                                             .directory = directory,
                                             .fstype = fstype,
                                             .options = mount.options});
  if (mounted) return true;
  image.attachment.mounts.pop_back();
  OBD_TRY(image.state.save(image.attachment));
  return std::unexpected(mounted.error());
}

Result<void> unmount_again(AttachedImage& image, const std::string& directory) {
  OBD_TRY(attach::unmount(directory));
  image.attachment.mounts.pop_back();
  // One that was made for this call goes as a whole, also where there is no space to write.
  return image.is_new ? Result<void>() : image.state.save(image.attachment);
}

Result<int> run_dir(const AttachArguments& arguments, const std::string& named,
                    const std::string& options) {
  OBD_TRY_ASSIGN(const std::string directory, posix_file_system().canonical(named));
  OBD_TRY_ASSIGN(AttachedImage image, AttachedImage::attach(arguments));
  const auto mounted = mount_image(image, arguments, directory, options);
  if (!mounted) return image.give_up(mounted.error());
  const auto told = tell(
      arguments.json ? mount_list("bind", directory, {arguments.read_only ? "ro" : "rw", "rbind"})
                     : fmt::format("{} on {}", image.attachment.device, directory));
  if (!told) {
    if (*mounted) OBD_TRY(unmount_again(image, directory));
    return image.give_up(told.error());
  }
  return kExitSuccess;
}

}  // namespace

void add_dir(CLI::App& app, Runner& chosen) {
  CLI::App* command = app.add_subcommand("dir", "Attaches an image and mounts it on a directory");
  const auto arguments = std::make_shared<AttachArguments>(*command);
  const auto directory = std::make_shared<std::string>();
  const auto options = std::make_shared<std::string>();
  command->add_option("DIR", *directory, "An existing directory")->required();
  command
      ->add_option(
          "-o,--options", *options,
          "Mount options, as mount(8) has them (default: rw,discard where the type has it)")
      ->type_name("OPTIONS");
  command->footer(
      "The file system is mounted when this returns. Nothing repairs it, ever: use fsck on the\n"
      "device of `obd-mount dev`. `obd-mount umount` undoes it.\n\n"
      "Examples:\n"
      "  obd-mount dir disk /mnt\n"
      "  obd-mount dir disk /mnt --mkfs xfs        make the file system if there is none\n"
      "  obd-mount dir base /mnt --read-only\n"
      "  obd-mount dir disk /mnt --untrusted --fstype ext4\n"
      "  obd-mount dir disk /mnt --json            [{\"type\":\"bind\",\"source\":\"/mnt\",...}]");
  command->callback([arguments, directory, options, &chosen] {
    tool::or_usage_error(arguments->check());
    chosen = [arguments, directory, options] { return run_dir(*arguments, *directory, *options); };
  });
}

}  // namespace obd::mount
