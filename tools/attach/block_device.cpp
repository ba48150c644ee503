#include "tools/attach/block_device.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <thread>

#include "core/io/file.h"
#include "tools/attach/loop_device.h"
#include "tools/attach/process.h"
#include "tools/obd/interrupt.h"

namespace obd::attach {
namespace {

using namespace std::chrono_literals;

constexpr auto kPatience = 30s;
constexpr auto kPause = 2ms;
constexpr size_t kFirstRead = 4096;

Result<void> read_first_block(const std::string& device) {
  // Direct: from the device, not from what an earlier disk of its number left in the cache.
  const Descriptor fd(::open(device.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "{}: cannot open", device);
  struct Block {
    alignas(kFirstRead) std::array<std::byte, kFirstRead> bytes;
  };
  const auto block = std::make_unique<Block>();
  if (::pread(fd.get(), block->bytes.data(), kFirstRead, 0) < 0) {
    return fail_errno(errno, "{}: cannot be read", device);
  }
  return {};
}

Result<uint64_t> size_of(const std::string& device) {
  const Descriptor fd(::open(device.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "{}: cannot open", device);
  uint64_t size = 0;
  if (::ioctl(fd.get(), BLKGETSIZE64, &size) != 0) return fail_errno(errno, "{}: size", device);
  return size;
}

// ---- who uses a device ----

// proc(5), mountinfo: the third field is the device's numbers, the fifth the directory, with space,
// tab, newline and backslash as octal escapes.
std::string unescape(const std::string& text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                 (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

// A btrfs has a number of its own: its device has to be believed by name. The type and the name are
// the first fields after a lone dash.
bool is_btrfs_of(std::istringstream& fields, dev_t number) {
  std::string field, source;
  while (fields >> field && field != "-") {
  }
  if (!(fields >> field >> source) || field != "btrfs") return false;
  const auto named = device_number(unescape(source));
  return named && *named == number;
}

void add_mounts(const std::string& mountinfo, dev_t number, pid_t process,
                std::vector<DeviceMount>& mounts) {
  const std::string wanted = fmt::format("{}:{}", major(number), minor(number));
  std::ifstream lines(mountinfo);
  std::string line;
  while (std::getline(lines, line)) {
    std::istringstream fields(line);
    std::string id, parent, device, root, directory;
    if (!(fields >> id >> parent >> device >> root >> directory)) continue;
    if (device == wanted || is_btrfs_of(fields, number)) {
      mounts.push_back({.directory = unescape(directory), .process = process});
    }
  }
}

bool any_open_file(pid_t pid, const std::function<bool(const struct stat&)>& is_wanted) {
  std::error_code code;
  for (const auto& entry :
       std::filesystem::directory_iterator(fmt::format("/proc/{}/fd", pid), code)) {
    struct stat info{};
    if (::stat(entry.path().c_str(), &info) == 0 && is_wanted(info)) return true;
  }
  return false;
}

bool has_open(pid_t pid, dev_t number) {
  return any_open_file(pid, [number](const struct stat& info) {
    return S_ISBLK(info.st_mode) && info.st_rdev == number;
  });
}

bool is_in_file_system(pid_t pid, dev_t file_system) {
  for (const char* const link : {"cwd", "root", "exe"}) {
    struct stat info{};
    if (::stat(fmt::format("/proc/{}/{}", pid, link).c_str(), &info) == 0 &&
        info.st_dev == file_system) {
      return true;
    }
  }
  return any_open_file(
      pid, [file_system](const struct stat& info) { return info.st_dev == file_system; });
}

// Programs like udevd open a device for a moment whenever it changes, and obd-mount to ask what it
// is; one that writes to this image's device holds the image's lock.
bool is_passer_by(const std::string& name) {
  return name == "systemd-udevd" || name == "(udev-worker)" || name == "obd-mount";
}

std::optional<pid_t> find_opener(dev_t number) {
  for (const pid_t pid : all_processes()) {
    if (pid != ::getpid() && has_open(pid, number) && !is_passer_by(process_name(pid))) return pid;
  }
  return std::nullopt;
}

// A loop device over this one holds it without a claim and without a descriptor of a process.
std::string find_loop_over(dev_t number) {
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/block", code)) {
    std::string loop = "/dev/" + entry.path().filename().string();
    // Whatever its name, a block device is hardly anywhere else; and what is not asked is not
    // opened.
    if (loop.starts_with("/dev/loop") && loop_backing_file(loop).starts_with("/dev/") &&
        loop_backing_device(loop) == number) {
      return loop;
    }
  }
  return "";
}

}  // namespace

Result<dev_t> device_number(const std::string& device) {
  struct stat info{};
  if (::stat(device.c_str(), &info) != 0) return fail_errno(errno, "{}", device);
  if (!S_ISBLK(info.st_mode)) return fail(ENOTBLK, "{}: is no block device", device);
  return info.st_rdev;
}

Result<void> wait_until_usable(const std::string& device, uint64_t size) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (true) {
    const auto now = size_of(device);
    if (now && *now == size) return read_first_block(device);
    if (std::chrono::steady_clock::now() > deadline) {
      if (!now) return std::unexpected(now.error());
      return fail(ETIMEDOUT, "{}: has {} bytes; the disk has {}", device, *now, size);
    }
    OBD_TRY(tool::check_interrupt());
    std::this_thread::sleep_for(kPause);
  }
}

Result<std::vector<DeviceMount>> find_mounts(const std::string& device) {
  OBD_TRY_ASSIGN(const dev_t number, device_number(device));
  std::vector<DeviceMount> mounts;
  add_mounts("/proc/self/mountinfo", number, 0, mounts);
  std::error_code code;
  std::set<std::string> seen = {std::filesystem::read_symlink("/proc/self/ns/mnt", code).string()};
  for (const pid_t pid : all_processes()) {
    const auto space =
        std::filesystem::read_symlink(fmt::format("/proc/{}/ns/mnt", pid), code).string();
    if (code || !seen.insert(space).second) continue;
    add_mounts(fmt::format("/proc/{}/mountinfo", pid), number, pid, mounts);
  }
  return mounts;
}

std::string describe_users(const std::string& device) {
  const auto mounts = find_mounts(device);
  if (mounts && !mounts->empty()) {
    const DeviceMount& mount = mounts->front();
    if (mount.process == 0) return fmt::format("mounted on {}", mount.directory);
    return fmt::format("mounted on {} in the mount namespace of process {} ({})", mount.directory,
                       mount.process, process_name(mount.process));
  }
  if (const auto number = device_number(device)) {
    if (const std::string loop = find_loop_over(*number); !loop.empty()) {
      return fmt::format("shown by {}", loop);
    }
    if (const auto opener = find_opener(*number)) {
      return fmt::format("open in process {} ({})", *opener, process_name(*opener));
    }
  }
  return "";
}

std::string describe_users_of_mount(const std::string& directory) {
  constexpr int kNamed = 3;
  struct stat info{};
  if (::stat(directory.c_str(), &info) != 0) return "";
  std::string users;
  int named = 0;
  for (const pid_t pid : all_processes()) {
    if (!is_in_file_system(pid, info.st_dev)) continue;
    if (named++ == kNamed) return users + " and others";
    users += fmt::format("{}process {} ({})", users.empty() ? "" : ", ", pid, process_name(pid));
  }
  return users;
}

Result<DeviceClaim> DeviceClaim::take(const std::string& device) {
  OBD_TRY(device_number(device));
  // O_EXCL without O_CREAT: a block device that is mounted or claimed says EBUSY (open(2)).
  Descriptor fd(::open(device.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
  if (!fd && errno != EBUSY) return fail_errno(errno, "{}: cannot open", device);
  if (!fd) {
    const std::string users = describe_users(device);
    return fail(EBUSY, "{}: is in use{}{}", device, users.empty() ? "" : ": ", users);
  }
  DeviceClaim claim(device, std::move(fd));
  OBD_TRY(claim.check_unused());
  return claim;
}

Result<void> DeviceClaim::check_unused() const {
  const std::string users = describe_users(device_);
  if (!users.empty()) return fail(EBUSY, "{}: is in use: {}", device_, users);
  return {};
}

Result<void> DeviceClaim::flush() const {
  if (::fsync(fd_.get()) != 0) return fail_errno(errno, "{}: cannot be flushed", device_);
  return {};
}

}  // namespace obd::attach
