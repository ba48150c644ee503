#include "tools/attach/traces.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "core/io/file.h"
#include "tools/attach/attachment.h"
#include "tools/attach/loop_device.h"
#include "tools/attach/nbd_kernel.h"
#include "tools/attach/process.h"
#include "tools/attach/state_folder.h"

namespace obd::attach {
namespace {

std::string path_of(dev_t device) {
  std::error_code code;
  const auto entry = std::filesystem::read_symlink(
      fmt::format("/sys/dev/block/{}:{}", major(device), minor(device)), code);
  return code ? std::string() : "/dev/" + entry.filename().string();
}

std::string identifier_of(const std::string& device) {
  if (const auto index = nbd_index(device)) return nbd_identifier(*index);
  return device.starts_with("/dev/loop") ? loop_mark(device) : "";
}

// Server and front end are told the socket, the supervisor its folder and the image's name there.
bool serves(const std::vector<std::string>& words, const StatePaths& paths) {
  const auto has = [&](std::string_view word) {
    return std::ranges::find(words, word) != words.end();
  };
  return has(paths.socket) ||
         (has("supervise") && has(paths.id) && has(directory_of(paths.folder)));
}

// Whether a path means the same to a process, which may have a mount namespace of its own.
bool means_the_same(pid_t pid, const std::string& path) {
  struct stat here{};
  struct stat there{};
  const bool is_here = ::stat(path.c_str(), &here) == 0;
  const bool is_there = ::stat(fmt::format("/proc/{}/root{}", pid, path).c_str(), &there) == 0;
  if (!is_here || !is_there) return is_here == is_there;
  return here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

}  // namespace

bool is_taken(const std::string& device) {
  if (const auto index = nbd_index(device)) return nbd_is_connected(*index);
  return !loop_backing_file(device).empty();
}

std::string attached_image_id(dev_t device) {
  const std::string identifier = identifier_of(path_of(device));
  if (!identifier.starts_with(kIdentifierPrefix)) return "";
  const std::string rest = identifier.substr(kIdentifierPrefix.size());
  std::string id = rest.substr(0, rest.find(':'));
  return is_image_id(id) ? id : "";
}

std::string find_traces(const std::string& state_dir, const std::string& image_id) {
  std::string traces;
  const StatePaths paths(state_dir, image_id);
  for (const pid_t pid : all_processes()) {
    if (!serves(process_words(pid), paths) || !means_the_same(pid, directory_of(paths.folder))) {
      continue;
    }
    traces += fmt::format("{}process {} ({})", traces.empty() ? "" : ", ", pid, process_name(pid));
  }
  return traces;
}

}  // namespace obd::attach
