// obd resize: gives the disk of an image another size.

#include "core/image/resize.h"

#include <cerrno>
#include <limits>
#include <memory>

#include "core/format/lsmt.h"
#include "tools/obd/command.h"
#include "tools/obd/common.h"
#include "tools/obd/size_text.h"

namespace obd::tool {
namespace {

struct ResizeOptions {
  struct Size {
    uint64_t bytes = 0;
    bool is_added = false;  // to what the disk has
  };
  std::string image;
  std::string size;
  Size wanted;  // what `size` comes to
  bool force = false;
  bool json = false;
};

// SIZE, or +SIZE on top of what the disk has.
Result<ResizeOptions::Size> parse_wanted_size(std::string_view text) {
  ResizeOptions::Size size;
  size.is_added = text.starts_with('+');
  auto bytes = size.is_added ? parse_size(text.substr(1)) : parse_disk_size(text);
  if (!bytes) return fail(bytes.error().code, "SIZE: {}", bytes.error().message);
  size.bytes = *bytes;
  return size;
}

Result<uint64_t> wanted_size(FileSystem& fs, const Target& target,
                             const ResizeOptions::Size& wanted) {
  if (!wanted.is_added) return wanted.bytes;
  OBD_TRY_ASSIGN(const auto image, open_to_look(fs, target, false));
  const uint64_t size = image->size();
  OBD_TRY(image->close());
  if (wanted.bytes > std::numeric_limits<uint64_t>::max() - size) {
    return fail(EINVAL, "SIZE: {} bytes more than {} do not fit into 64 bits", wanted.bytes, size);
  }
  const uint64_t sum = size + wanted.bytes;
  if (!is_aligned(sum, kSectorSize)) {
    return fail(EINVAL, "SIZE: {} bytes more than {} are no multiple of {}, as a disk's size is",
                wanted.bytes, size, kSectorSize);
  }
  if (sum > kMaxDiskSize) {
    return fail(EINVAL,
                "SIZE: {} bytes more than {} are above the largest that a disk can have, {}",
                wanted.bytes, size, kMaxDiskSize);
  }
  return sum;
}

Result<int> run_resize(const ResizeOptions& options) {
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(const Target target, find_image(fs, options.image));
  const Result<uint64_t> size = wanted_size(fs, target, options.wanted);
  if (!size) return std::unexpected(size.error());
  OBD_TRY_ASSIGN(const ResizeReport done, resize_image(fs, target.path, *size, options.force));
  if (done.size > done.old_size && done.size > lsmt::kAddressableEnd.bytes()) {
    warn("writes past 512 PiB will be refused: the format has no addresses for them");
  }
  if (options.json) {
    const Json json = {{"image", target.path},
                       {"old_virtual_size", done.old_size},
                       {"virtual_size", done.size},
                       {"hidden_bytes", done.hidden}};
    fmt::print("{}\n", json_text(json, 2));
    return kExitSuccess;
  }
  if (done.size == done.old_size) {
    fmt::print("nothing to resize: {} has {} already\n", target.path, exact_size(done.size));
    return kExitSuccess;
  }
  fmt::print("resized {}: from {} to {}\n", target.path, exact_size(done.old_size),
             exact_size(done.size));
  if (done.hidden != 0) {
    fmt::print("the new part reads as zeros: {} of the lowers there are hidden\n",
               human_size(done.hidden));
  }
  return kExitSuccess;
}

}  // namespace

void add_resize(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<ResizeOptions>();
  CLI::App* command = app.add_subcommand("resize", "Gives the disk of an image another size");
  command->add_option("IMAGE", options->image, "config.v1.json, or the folder that holds it")
      ->required();
  command
      ->add_option("SIZE", options->size,
                   "The new size, as in 512M, 10G, 1.5T; or what to add: +10G")
      ->required();
  command->add_flag("-f,--force", options->force,
                    "Allow a smaller size; data is not cut off even so");
  command->add_flag("--json", options->json, "Print JSON, sizes in bytes");
  command->footer(
      "The new part of a larger disk reads as zeros. The file system on the disk keeps its\n"
      "size: enlarge it afterwards (resize2fs, xfs_growfs), and make it smaller before the\n"
      "disk. No server may have the image open.\n\n"
      "Examples:\n"
      "  obd resize disk 20G\n"
      "  obd resize disk +10G\n"
      "  obd resize disk 5G --force");
  command->callback([options, &chosen] {
    options->wanted = or_usage_error(parse_wanted_size(options->size));
    chosen = [options] { return run_resize(*options); };
  });
}

}  // namespace obd::tool
