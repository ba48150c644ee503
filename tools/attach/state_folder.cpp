#include "tools/attach/state_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
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

constexpr size_t kIdLength = 16;
constexpr std::string_view kAttachmentName = "attachment.json";
constexpr std::array<std::string_view, 12> kNames = {
    kAttachmentName,  "server.json",  "server.pid",   "front_end.pid",
    "supervisor.pid", "server.log",   "server.log.1", "front_end.log",
    "supervisor.log", "server.ready", "server.sock",  "disk"};

// A file, or one with which replace_file() was about to replace it.
bool is_name_of(std::string_view name, std::string_view file) {
  return name == file || (name.starts_with(file) && name.substr(file.size()).starts_with(".tmp-"));
}

// Whether something in an image's folder is one of the files that are made there. What they belong
// to is in the attachment, which is made first and removed last: without it nothing else is ours.
bool is_ours(const std::string& path, bool has_attachment) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) != 0 || info.st_uid != ::geteuid()) return false;
  if (!S_ISREG(info.st_mode) && !S_ISSOCK(info.st_mode)) return false;
  const std::string name = std::filesystem::path(path).filename();
  if (!has_attachment) return is_name_of(name, kAttachmentName);
  return std::ranges::any_of(kNames, [&](std::string_view file) { return is_name_of(name, file); });
}

// Whoever can write here can have root run and unmount things: nobody but the owner may.
Result<void> check_private(const std::string& path) {
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

Result<void> make_private_folder(const std::string& path) {
  std::error_code code;
  const std::string parent = directory_of(path);
  std::filesystem::create_directories(parent, code);
  if (code) return fail_errno(code.value(), "{}: cannot be made", parent);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno(errno, "{}: cannot be made", path);
  }
  return check_private(path);
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

// 64-bit FNV-1a. Two images with one hash are told apart by the path in the state, and refused.
std::string image_id(std::string_view image) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const char byte : image) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001B3;
  return fmt::format("{:016x}", hash);
}

bool is_image_id(std::string_view name) {
  return name.size() == kIdLength &&
         name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

Result<void> check_state_dir(const std::string& state_dir) {
  std::error_code code;
  if (!std::filesystem::exists(state_dir, code) && !code) return {};
  OBD_TRY(check_private(state_dir));
  OBD_TRY_ASSIGN(const auto ids, list_ids(state_dir));
  const auto entries = std::filesystem::directory_iterator(state_dir, code);
  if (code) return fail_errno(code.value(), "{}: cannot be read", state_dir);
  if (!ids.empty() || entries == std::filesystem::directory_iterator()) return {};
  return fail(EINVAL, "{}: is no state folder: it holds {} and no image's state", state_dir,
              entries->path().filename().string());
}

bool is_lack_of_space(const Error& error) { return error.code == ENOSPC || error.code == EDQUOT; }

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
  if (!is_image_id(id)) return fail(EINVAL, "{}: is no image's name in a state folder", id);
  OBD_TRY(make_private_folder(state_dir));
  StatePaths paths(state_dir, id);
  while (true) {
    const int fd = ::open(paths.lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return fail_errno(errno, "{}: cannot open", paths.lock);
    ImageState state(paths, fd);
    while (::flock(fd, LOCK_EX) != 0) {
      if (errno != EINTR) return fail_errno(errno, "{}: cannot lock", paths.lock);
      OBD_TRY(tool::check_interrupt());
    }
    // The one who held it may have removed it: then the lock is on a file without a name.
    struct stat held{};
    struct stat named{};
    if (::fstat(fd, &held) == 0 && (!S_ISREG(held.st_mode) || held.st_size != 0)) {
      state.lock_fd_ = -1;
      ::close(fd);
      return fail(EEXIST, "{}: is not a lock file of obd-mount, which are empty: move it away",
                  paths.lock);
    }
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
  // Also for a child that hangs in the kernel, and shares it.
  ::flock(lock_fd_, LOCK_UN);
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
  struct stat info{};
  const bool has_attachment = ::lstat(paths_.attachment.c_str(), &info) == 0;
  std::vector<std::string> files;
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator(paths_.folder, code)) {
    const std::string path = entry.path();
    if (!is_ours(path, has_attachment)) {
      return fail(EEXIST, "{}: {}; its folder stays as it is: move it away and run this again",
                  path,
                  has_attachment ? "was not made by obd-mount"
                                 : "without an attachment.json nobody knows what it belongs to");
    }
    if (path != paths_.attachment) files.push_back(path);
  }
  if (code == std::errc::no_such_file_or_directory) return {};
  if (code) return fail_errno(code.value(), "{}: cannot be read", paths_.folder);
  // The last name to go is the one by which the rest is known to be here.
  files.push_back(paths_.attachment);
  for (const std::string& file : files) {
    if (::unlink(file.c_str()) != 0 && errno != ENOENT) {
      return fail_errno(errno, "{}: cannot be removed", file);
    }
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
    std::error_code gone;
    const auto type = entry.symlink_status(gone).type();
    // A lock without a folder: somebody is just beginning, or was killed then.
    if (type == std::filesystem::file_type::regular && name.ends_with(kLockSuffix)) {
      name.resize(name.size() - kLockSuffix.size());
    } else if (type != std::filesystem::file_type::directory) {
      continue;
    }
    if (is_image_id(name)) ids.insert(std::move(name));
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
