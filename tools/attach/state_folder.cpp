#include "tools/attach/state_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string_view>

#include "core/io/file.h"
#include "tools/obd/interrupt.h"

namespace obd::attach {
namespace {

constexpr uint64_t kMaxStateSize = 1 << 20;
constexpr std::string_view kLockSuffix = ".lock";

// 64-bit FNV-1a. Two images with one hash are told apart by the path in the state, and refused.
std::string image_id(std::string_view path) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const char byte : path) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001B3;
  return fmt::format("{:016x}", hash);
}

// Whoever can write here can have root run and unmount things: nobody but the owner may.
Result<void> make_private_folder(const std::string& path) {
  std::error_code code;
  const std::string parent = directory_of(path);
  std::filesystem::create_directories(parent, code);
  if (code) return fail_errno(code.value(), "{}: cannot be made", parent);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno(errno, "{}: cannot be made", path);
  }
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return fail_errno(errno, "{}", path);
  if (!S_ISDIR(info.st_mode)) return fail(ENOTDIR, "{}: is not a folder", path);
  if (info.st_uid != ::geteuid() || (info.st_mode & 022) != 0) {
    return fail(
        EPERM, "{}: others could write to it; choose a state folder that is only yours (mode 0700)",
        path);
  }
  return {};
}

// The kernel names a loop device's file without links, so the paths here have none either.
std::string canonical_dir(const std::string& dir) {
  std::error_code code;
  const auto absolute = std::filesystem::absolute(dir, code);
  auto canonical = std::filesystem::weakly_canonical(absolute, code);
  if (code) return dir;
  return canonical.has_filename() ? canonical.string() : canonical.parent_path().string();
}

Result<std::optional<std::string>> read_if_there(const std::string& path) {
  auto text = read_whole(posix_file_system(), path, kMaxStateSize);
  if (text) return std::optional(std::move(*text));
  if (text.error().code == ENOENT) return std::nullopt;
  return std::unexpected(text.error());
}

}  // namespace

StatePaths::StatePaths(const std::string& named_dir, std::string image_id)
    : StatePaths(Canonical{canonical_dir(named_dir)}, std::move(image_id)) {}

StatePaths::StatePaths(const Canonical& dir, std::string image_id)
    : id(std::move(image_id)),
      lock(fmt::format("{}/{}{}", dir.path, id, kLockSuffix)),
      folder(fmt::format("{}/{}", dir.path, id)),
      attachment(folder + "/attachment.json"),
      server_status(folder + "/server.json"),
      server_record(folder + "/server.pid"),
      front_end_record(folder + "/front_end.pid"),
      supervisor_record(folder + "/supervisor.pid"),
      server_log(folder + "/server.log"),
      front_end_log(folder + "/front_end.log"),
      supervisor_log(folder + "/supervisor.log"),
      server_ready(folder + "/server.ready"),
      socket(folder + "/server.sock"),
      disk(folder + "/disk") {}

Result<ImageState> ImageState::lock(const std::string& state_dir, const std::string& image) {
  OBD_TRY_ASSIGN(ImageState state, lock_id(state_dir, image_id(image)));
  OBD_TRY_ASSIGN(const auto attachment, state.load());
  if (attachment && attachment->image != image) {
    return fail(EEXIST,
                "{}: is the state of {}, not of {}: use another --state-dir for one of them",
                state.paths_.folder, attachment->image, image);
  }
  return state;
}

Result<ImageState> ImageState::lock_id(const std::string& state_dir, const std::string& id) {
  OBD_TRY(make_private_folder(state_dir));
  StatePaths paths(state_dir, id);
  while (true) {
    const int fd = ::open(paths.lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return fail_errno(errno, "{}: cannot open", paths.lock);
    ImageState state(paths, fd);
    while (::flock(fd, LOCK_EX) != 0) {
      if (errno != EINTR) return fail_errno(errno, "{}: cannot lock", paths.lock);
      OBD_TRY(tool::check_interrupt());
    }
    // The one who held it may have removed it: then the lock is on a file without a name.
    struct stat held{};
    struct stat named{};
    if (::fstat(fd, &held) == 0 && ::stat(paths.lock.c_str(), &named) == 0 &&
        held.st_ino == named.st_ino && held.st_dev == named.st_dev) {
      return state;
    }
  }
}

ImageState::ImageState(ImageState&& other) noexcept
    : paths_(std::move(other.paths_)), lock_fd_(other.lock_fd_) {
  other.lock_fd_ = -1;
}

ImageState::~ImageState() {
  if (lock_fd_ < 0) return;
  // Without a folder there is nothing to lock. Removed while held: the next one looks again.
  struct stat held{};
  struct stat named{};
  if (::access(paths_.folder.c_str(), F_OK) != 0 && ::fstat(lock_fd_, &held) == 0 &&
      ::stat(paths_.lock.c_str(), &named) == 0 && held.st_ino == named.st_ino) {
    ::unlink(paths_.lock.c_str());
  }
  ::close(lock_fd_);
}

Result<std::optional<Attachment>> ImageState::load() const { return look_at(paths_); }

Result<void> ImageState::save(const Attachment& attachment) {
  std::string text;
  try {
    text = to_json(attachment);
  } catch (const std::exception& error) {
    return fail(EINVAL, "{}: its path is not UTF-8, which the state cannot hold", attachment.image);
  }
  OBD_TRY(make_private_folder(paths_.folder));
  return replace_file(posix_file_system(), paths_.attachment, text);
}

Result<void> ImageState::remove() {
  // The last name to go is the one by which the rest is known to be here.
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator(paths_.folder, code)) {
    if (entry.path() == paths_.attachment) continue;
    // Not recursive: a folder in here is none of ours, least of all one that is mounted.
    if (::unlink(entry.path().c_str()) != 0) {
      return fail_errno(errno, "{}: cannot be removed", entry.path().string());
    }
  }
  if (code == std::errc::no_such_file_or_directory) return {};
  if (code) return fail_errno(code.value(), "{}: cannot be read", paths_.folder);
  if (::unlink(paths_.attachment.c_str()) != 0 && errno != ENOENT) {
    return fail_errno(errno, "{}: cannot be removed", paths_.attachment);
  }
  if (::rmdir(paths_.folder.c_str()) != 0 && errno != ENOENT) {
    return fail_errno(errno, "{}: cannot be removed", paths_.folder);
  }
  return {};
}

Result<std::vector<std::string>> list_ids(const std::string& state_dir) {
  std::set<std::string> ids;
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator(state_dir, code)) {
    std::string name = entry.path().filename().string();
    // A lock without a folder: somebody is just beginning, or was killed then.
    if (name.ends_with(kLockSuffix)) {
      ids.insert(name.substr(0, name.size() - kLockSuffix.size()));
    } else if (entry.is_directory(code)) {
      ids.insert(std::move(name));
    }
  }
  if (code && code != std::errc::no_such_file_or_directory) {
    return fail_errno(code.value(), "{}: cannot be read", state_dir);
  }
  return std::vector<std::string>(ids.begin(), ids.end());
}

Result<std::optional<Attachment>> look_at(const StatePaths& paths) {
  OBD_TRY_ASSIGN(const auto text, read_if_there(paths.attachment));
  if (!text) return std::nullopt;
  OBD_TRY_ASSIGN(Attachment attachment, parse_attachment(paths.attachment, *text));
  return attachment;
}

Result<ServerStatus> server_status(const StatePaths& paths) {
  OBD_TRY_ASSIGN(const auto text, read_if_there(paths.server_status));
  if (!text) return ServerStatus{};
  return parse_server_status(paths.server_status, *text);
}

}  // namespace obd::attach
