// obd-mount dev: attaches an image and says which device it is.

#include <cerrno>
#include <memory>
#include <utility>

#include "tools/attach/file_system.h"
#include "tools/mount/arguments.h"
#include "tools/mount/command.h"
#include "tools/mount/mount_list.h"
#include "tools/obd/common.h"

namespace obd::mount {
namespace {

// The type that the caller will mount. Without --json nobody asks.
Result<std::string> type_to_tell(const AttachedImage& image, const AttachArguments& arguments) {
  if (!arguments.json && arguments.mkfs.empty()) return std::string();
  OBD_TRY_ASSIGN(std::string fstype, image.file_system(arguments));
  if (fstype.empty() && arguments.json) {
    return fail(EINVAL,
                "{}: holds no file system: make one with --mkfs, or say the type with --fstype",
                image.attachment.image);
  }
  return fstype;
}

Result<int> run_dev(const AttachArguments& arguments) {
  OBD_TRY_ASSIGN(AttachedImage image, AttachedImage::attach(arguments));
  const Result<std::string> fstype = type_to_tell(image, arguments);
  if (!fstype) return image.give_up(fstype.error());
  const bool was_held = std::exchange(image.attachment.held, true);
  if (!was_held) {
    if (auto saved = image.state.save(image.attachment); !saved)
      return image.give_up(saved.error());
  }
  const std::string& device = image.attachment.device;
  std::string line = device;
  if (arguments.json) {
    auto options = attach::default_options(*fstype, arguments.read_only);
    if (arguments.untrusted) {
      const auto more = attach::untrusted_options(*fstype);
      options.insert(options.end(), more.begin(), more.end());
    }
    line = mount_list(*fstype, device, options);
  }
  if (const auto told = tell(line); !told) {
    image.attachment.held = was_held;
    // One that was made for this call goes as a whole, also where there is no space to write.
    if (!was_held && !image.is_new) OBD_TRY(image.state.save(image.attachment));
    return image.give_up(told.error());
  }
  return kExitSuccess;
}

}  // namespace

void add_dev(CLI::App& app, Runner& chosen) {
  CLI::App* command = app.add_subcommand("dev", "Attaches an image and prints its block device");
  const auto arguments = std::make_shared<AttachArguments>(*command);
  command->footer(
      "The device can be used when this returns. An image that is attached already keeps its\n"
      "device, which is printed again. `obd-mount umount` ends it.\n\n"
      "Examples:\n"
      "  obd-mount dev disk                      /dev/nbd0\n"
      "  obd-mount dev disk --mkfs ext4 --json   "
      "[{\"type\":\"ext4\",\"source\":\"/dev/nbd0\",...}]\n"
      "  obd-mount dev base --read-only          an image without a writable layer");
  command->callback([arguments, &chosen] {
    tool::or_usage_error(arguments->check());
    chosen = [arguments] { return run_dev(*arguments); };
  });
}

}  // namespace obd::mount
