#include "tools/attach/loop_device.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "core/io/descriptor.h"
#include "core/io/file.h"

namespace obd::attach {
namespace {

// Others take loop devices, too, and may be faster after we have been told of a free one.
constexpr int kAttempts = 64;

// What the kernel adds to the name of a file that has been removed.
constexpr std::string_view kRemoved = " (deleted)";

// The device itself answers, not the file that it shows: that one's server may be dead.
// ENXIO: it shows nothing.
Result<loop_info64> status_of(const std::string& device) {
  const Descriptor loop(::open(device.c_str(), O_RDONLY | O_CLOEXEC));
  if (!loop) return fail_errno(errno, "{}: cannot open", device);
  loop_info64 info{};
  if (::ioctl(loop.get(), LOOP_GET_STATUS64, &info) != 0) {
    return fail_errno(errno, "{}: cannot be asked what it shows", device);
  }
  return info;
}

std::string mark_in(const loop_info64& info) {
  return reinterpret_cast<const char*>(info.lo_file_name);
}

}  // namespace

Result<std::string> attach_loop(const std::string& file, const std::string& mark, bool read_only) {
  if (mark.size() >= LO_NAME_SIZE) return fail(EINVAL, "{}: is too long for a loop device", mark);
  const Descriptor control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (!control) {
    return fail(EOPNOTSUPP,
                "/dev/loop-control: {}: this kernel has no loop devices, or only root may use them",
                std::strerror(errno));
  }
  const Descriptor backing(::open(file.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
  if (!backing) return fail_errno(errno, "{}: cannot open", file);

  loop_config config{};
  config.fd = static_cast<__u32>(backing.get());
  config.block_size = 512;  // what the layers address; file systems ask for more
  config.info.lo_flags = LO_FLAGS_DIRECT_IO | (read_only ? LO_FLAGS_READ_ONLY : 0);
  mark.copy(reinterpret_cast<char*>(config.info.lo_file_name), LO_NAME_SIZE - 1);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return fail_errno(errno, "cannot get a loop device");
    std::string device = fmt::format("/dev/loop{}", number);
    const Descriptor loop(::open(device.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
    if (!loop) {
      if (errno == ENOENT || errno == ENXIO) continue;
      return fail_errno(errno, "{}: cannot open", device);
    }
    if (::ioctl(loop.get(), LOOP_CONFIGURE, &config) == 0) return device;
    if (errno != EBUSY) return fail_errno(errno, "{}: cannot show {}", device, file);
  }
  return fail(EBUSY, "cannot get a loop device: others take them all the time");
}

std::string loop_backing_file(const std::string& device) {
  const std::string name = std::filesystem::path(device).filename();
  const auto text =
      read_whole(posix_file_system(), fmt::format("/sys/block/{}/loop/backing_file", name), 8192);
  return text ? text->substr(0, text->find('\n')) : "";
}

std::string loop_mark(const std::string& device) {
  const auto info = status_of(device);
  return info ? mark_in(*info) : "";
}

dev_t loop_backing_device(const std::string& device) {
  const auto info = status_of(device);
  return info ? info->lo_rdevice : 0;
}

Result<std::string> find_loop_device(const std::string& file, const std::string& mark) {
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/block", code)) {
    const std::string name = entry.path().filename();
    // Opened is only what has the name: others need not see a user where there is none.
    if (!name.starts_with("loop")) continue;
    std::string shown = loop_backing_file(name);
    if (shown.ends_with(kRemoved)) shown.resize(shown.size() - kRemoved.size());
    if (shown != file) continue;
    std::string device = "/dev/" + name;
    const auto info = status_of(device);
    // One that cannot be asked is rather taken for ours than for gone.
    if (info ? mark_in(*info) == mark : info.error().code != ENXIO) return device;
  }
  return fail(ENODEV, "no loop device shows {}", file);
}

Result<void> detach_loop(const std::string& device) {
  const Descriptor loop(::open(device.c_str(), O_RDONLY | O_CLOEXEC));
  if (!loop) return fail_errno(errno, "{}: cannot open", device);
  if (::ioctl(loop.get(), LOOP_CLR_FD) != 0 && errno != ENXIO) {
    return fail_errno(errno, "{}: cannot be freed", device);
  }
  return {};
}

}  // namespace obd::attach
