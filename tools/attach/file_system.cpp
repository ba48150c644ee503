#include "tools/attach/file_system.h"

#include <blkid/blkid.h>
#include <fcntl.h>
#include <libmount/libmount.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string_view>

#include "core/io/descriptor.h"
#include "tools/attach/block_device.h"
#include "tools/obd/mkfs.h"

namespace obd::attach {
namespace {

struct ProbeFree {
  void operator()(blkid_probe probe) const { blkid_free_probe(probe); }
};
struct ContextFree {
  void operator()(libmnt_context* context) const { mnt_free_context(context); }
};
struct TableFree {
  void operator()(libmnt_table* table) const { mnt_unref_table(table); }
};

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ",") + word;
  return text;
}

// What is on a device, in one word; empty: nothing is recognised.
struct Content {
  std::string fstype;
  std::string other;  // a partition table, or a signature that is no file system's
};

Result<Content> probe(const std::string& device) {
  const std::unique_ptr<blkid_struct_probe, ProbeFree> probe(
      blkid_new_probe_from_filename(device.c_str()));
  if (!probe) return fail_errno(errno != 0 ? errno : EIO, "{}: cannot be probed", device);
  blkid_probe_enable_superblocks(probe.get(), 1);
  blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE);
  blkid_probe_enable_partitions(probe.get(), 1);
  const int found = blkid_do_safeprobe(probe.get());
  if (found == 1) return Content{};
  if (found == -2)
    return fail(EEXIST, "{}: has the signatures of several file systems; say which with --fstype",
                device);
  if (found != 0) return fail(EIO, "{}: cannot be probed", device);
  Content content;
  const char* type = nullptr;
  const char* usage = nullptr;
  if (blkid_probe_lookup_value(probe.get(), "TYPE", &type, nullptr) == 0) {
    const bool is_fs = blkid_probe_lookup_value(probe.get(), "USAGE", &usage, nullptr) == 0 &&
                       std::string_view(usage) == "filesystem";
    (is_fs ? content.fstype : content.other) = type;
  } else if (blkid_probe_lookup_value(probe.get(), "PTTYPE", &type, nullptr) == 0) {
    content.other = fmt::format("a {} partition table", type);
  }
  return content;
}

// libmount's sentence. The device in it will be gone when somebody reads that.
std::string mount_error(libmnt_context* context, int code, const std::string& device) {
  char words[512] = {};
  mnt_context_get_excode(context, code, words, sizeof words);
  std::string text(words);
  std::ranges::replace(text, '\n', ' ');
  if (const size_t at = text.find(device); at != std::string::npos) {
    text.replace(at, device.size(), "the image's disk");
  }
  return text.empty() ? "mount failed" : text;
}

}  // namespace

Result<std::string> probe_file_system(const std::string& device) {
  OBD_TRY_ASSIGN(Content content, probe(device));
  return std::move(content.fstype);
}

Result<void> ensure_file_system(const std::string& device, const std::string& fstype) {
  OBD_TRY_ASSIGN(const std::string program, tool::find_mkfs(fstype));
  OBD_TRY_ASSIGN(const Content content, probe(device));
  if (content.fstype == fstype) return {};
  if (!content.fstype.empty() || !content.other.empty()) {
    return fail(EEXIST, "{}: already holds {}; it is not overwritten", device,
                content.fstype.empty() ? content.other : content.fstype);
  }
  return tool::run_mkfs(program, fstype, device);
}

Result<void> mount_device(const MountRequest& request) {
  const std::unique_ptr<libmnt_context, ContextFree> context(mnt_new_context());
  if (!context) return fail(ENOMEM, "no memory for mounting");
  const std::string options = joined(request.options);
  // Nothing of fstab or a user's mount helpers has a say.
  if (mnt_context_disable_helpers(context.get(), 1) != 0 ||
      mnt_context_set_source(context.get(), request.device.c_str()) != 0 ||
      mnt_context_set_target(context.get(), request.directory.c_str()) != 0 ||
      mnt_context_set_fstype(context.get(), request.fstype.c_str()) != 0 ||
      mnt_context_set_options(context.get(), options.c_str()) != 0) {
    return fail(EINVAL, "{}: cannot mount {} with options {}", request.directory, request.fstype,
                options);
  }
  const int code = mnt_context_mount(context.get());
  if (code == 0 && mnt_context_get_status(context.get()) == 1) return {};
  const int system_code = mnt_context_get_syscall_errno(context.get());
  return fail(system_code > 0 ? system_code : EIO, "{}: cannot mount {} with options {}: {}",
              request.directory, request.fstype, options,
              mount_error(context.get(), code, request.device));
}

Result<void> unmount(const std::string& directory) {
  if (::umount2(directory.c_str(), UMOUNT_NOFOLLOW) == 0) return {};
  if (errno == EBUSY) {
    const std::string users = describe_users_of_mount(directory);
    return fail(EBUSY, "{}: is in use: {}", directory,
                users.empty() ? "a process has a file open in it or works there"
                              : fmt::format("{} has a file open in it or works there", users));
  }
  return fail_errno(errno, "{}: cannot unmount", directory);
}

Result<void> sync_file_system(const std::string& directory) {
  const Descriptor folder(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return fail_errno(errno, "{}: cannot be opened", directory);
  if (::syncfs(folder.get()) != 0) {
    return fail_errno(errno, "{}: not all that was written could be made stable", directory);
  }
  return {};
}

Result<std::optional<MountedThere>> mounted_on(const std::string& directory) {
  const std::unique_ptr<libmnt_table, TableFree> table(
      mnt_new_table_from_file("/proc/self/mountinfo"));
  if (!table) return fail(EIO, "/proc/self/mountinfo: cannot be read");
  libmnt_fs* const found = mnt_table_find_target(table.get(), directory.c_str(), MNT_ITER_BACKWARD);
  if (found == nullptr) return std::nullopt;
  const char* const source = mnt_fs_get_source(found);
  MountedThere there{.source = source != nullptr ? source : "", .device = mnt_fs_get_devno(found)};
  // A file system like btrfs has a number of its own, and its device has to be believed by name.
  const char* const fstype = mnt_fs_get_fstype(found);
  if (major(there.device) == 0) {
    const bool is_btrfs = fstype != nullptr && std::string_view(fstype) == "btrfs";
    there.device = is_btrfs ? device_number(there.source).value_or(0) : 0;
  }
  return there;
}

std::vector<std::string> untrusted_options(const std::string& fstype) {
  std::vector<std::string> options = {"nosuid", "nodev"};
  // An ext4 says itself what is to happen after an error: a panic of the host, if it likes.
  if (fstype == "ext2" || fstype == "ext3" || fstype == "ext4") {
    options.emplace_back("errors=remount-ro");
  }
  return options;
}

std::vector<std::string> default_options(const std::string& fstype, bool read_only) {
  std::vector<std::string> options = {read_only ? "ro" : "rw"};
  if (!read_only &&
      (fstype == "ext4" || fstype == "xfs" || fstype == "btrfs" || fstype == "f2fs")) {
    options.emplace_back("discard");
  }
  // Two images over one lower carry one file system UUID.
  if (fstype == "xfs") options.emplace_back("nouuid");
  return options;
}

}  // namespace obd::attach
