#include "tools/snapshotter/labels.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <sstream>
#include <string_view>
#include <vector>

#include "core/base/units.h"
#include "tools/snapshotter/log.h"

namespace obd::snapshotter {
namespace {

constexpr size_t kMaxLabelSize = 4096;
constexpr uint64_t kGigabyte = uint64_t{1} << 30;

std::unexpected<Error> wrong(const char* name, const std::string& value, std::string_view wanted) {
  return fail(EINVAL, "label {} is '{}'; it is to be {}", name, shown(value), wanted);
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> words;
  std::istringstream stream(text);
  for (std::string word; std::getline(stream, word, separator);) {
    if (!word.empty()) words.push_back(word);
  }
  return words;
}

// Containerd makes labels of what an image's manifest says, so whoever has made an image has a say
// in them. What is mounted is therefore a file system on the disk, never one that shows the host
// (devtmpfs, ...); and no option names a file or a device of the host, as mkfs.ext4 -d, mkfs.xfs -l
// logdev= and the mount options journal_path= and logdev= do, or lets an error stop the host.
struct FileSystemType {
  std::string_view name;
  std::string_view mkfs_letters;  // options with a value that are harmless
};
constexpr std::string_view kExtLetters = "bCEGgIiJLmNOrTU";
constexpr std::array kTypes = {
    FileSystemType{"ext4", kExtLetters}, FileSystemType{"ext3", kExtLetters},
    FileSystemType{"ext2", kExtLetters}, FileSystemType{"xfs", "bdilLms"},
    FileSystemType{"btrfs", "dLmnOsU"},  FileSystemType{"f2fs", "lOo"},
    FileSystemType{"erofs", ""}};

// With a value or without; each between spaces.
constexpr std::string_view kMountOptions =
    " acl allocsize async atime autodefrag background_gc barrier commit compress "
    "compress-force compress_algorithm data dax delalloc dev diratime dirsync discard exec "
    "flushoncommit gquota grpquota inode32 inode64 inode_readahead_blks journal_checksum "
    "largeio lazytime logbsize logbufs max_batch_time min_batch_time noacl noatime "
    "noautodefrag nobarrier nodatacow nodatasum nodelalloc nodev nodiratime nodiscard noexec "
    "noload noquota norecovery nossd nosuid nouser_xattr nouuid pquota prjquota quota relatime "
    "ro rw space_cache ssd strictatime stripe suid sunit swalloc swidth sync thread_pool "
    "uquota user_xattr usrquota wsync ";

bool is_harmless_mount_option(std::string_view option) {
  return option.find_first_of(" /\"\\\n") == std::string_view::npos &&
         kMountOptions.contains(fmt::format(" {} ", option.substr(0, option.find('='))));
}

// Each is a letter and its value, in one word or two.
bool are_harmless_mkfs_options(std::string_view letters, const std::vector<std::string>& words) {
  for (size_t i = 0; i < words.size(); ++i) {
    std::string_view word = words[i];
    if (word.size() < 2 || word[0] != '-' || !letters.contains(word[1])) return false;
    const bool is_label = word[1] == 'L';
    word.remove_prefix(2);
    if (word.empty()) {
      if (++i == words.size()) return false;
      word = words[i];
    }
    if (word.starts_with('-') || word.contains('/')) return false;
    for (const std::string_view host : {"dev", "file", "name"}) {
      if (!is_label && word.contains(host)) return false;
    }
  }
  return true;
}

}  // namespace

Result<void> check_labels(const Labels& labels) {
  for (const auto& [name, value] : labels) {
    if (name.empty()) return fail(EINVAL, "a label has no name");
    if (name.size() + value.size() > kMaxLabelSize) {
      return fail(EINVAL, "label {} has {} bytes with its value; {} are allowed", shown(name),
                  name.size() + value.size(), kMaxLabelSize);
    }
  }
  return {};
}

std::string label_value(const Labels& labels, const char* name) {
  const auto found = labels.find(name);
  return found == labels.end() ? std::string() : found->second;
}

Result<std::optional<Mode>> asked_mode(const Labels& labels) {
  const std::string value = label_value(labels, label::kWritable);
  if (value.empty()) return std::nullopt;
  const auto mode = parse_mode(value);
  if (!mode) return wrong(label::kWritable, value, "dir, dev or overlayfs");
  return mode;
}

Result<uint64_t> asked_size(const Labels& labels) {
  const std::string value = label_value(labels, label::kVirtualSize);
  if (value.empty()) return 0;
  uint64_t gigabytes = 0;
  const char* const end = value.data() + value.size();
  const auto parsed = std::from_chars(value.data(), end, gigabytes);
  if (parsed.ec != std::errc() || parsed.ptr != end || gigabytes == 0 ||
      gigabytes > kMaxDiskSize / kGigabyte) {
    return wrong(label::kVirtualSize, value, "a size in GB, as 64");
  }
  return gigabytes * kGigabyte;
}

Result<uint64_t> asked_quota(const Labels& labels) {
  const std::string value = label_value(labels, label::kQuota);
  if (value.empty()) return 0;
  const auto size = parse_quota(value);
  if (!size) return wrong(label::kQuota, value, "a size, as 20g");
  return *size;
}

Result<FileSystemHint> file_system_hint(const Labels& labels) {
  const std::string value = label_value(labels, label::kFileSystem);
  if (value.empty()) return FileSystemHint{};
  const size_t first = value.find(';');
  const size_t second = first == std::string::npos ? first : value.find(';', first + 1);
  FileSystemHint hint;
  hint.type = value.substr(0, first);
  const auto type = std::ranges::find(kTypes, hint.type, &FileSystemType::name);
  if (type == kTypes.end()) {
    return wrong(label::kFileSystem, value,
                 "a type of file system that a disk can have, as ext4, or as ext4;noatime;-m 0");
  }
  if (first != std::string::npos) {
    hint.mount_options = split(
        value.substr(first + 1, second == std::string::npos ? second : second - first - 1), ',');
  }
  if (second != std::string::npos) hint.mkfs_options = split(value.substr(second + 1), ' ');
  const auto refused = std::ranges::find_if_not(hint.mount_options, is_harmless_mount_option);
  if (refused != hint.mount_options.end()) {
    return wrong(
        label::kFileSystem, value,
        fmt::format("without the mount option '{}', which a label cannot give", shown(*refused)));
  }
  if (!are_harmless_mkfs_options(type->mkfs_letters, hint.mkfs_options)) {
    return wrong(label::kFileSystem, value,
                 fmt::format("with no options for mkfs but '-X VALUE', X one of \"{}\" for {}, "
                             "and no VALUE that names a file or a device",
                             type->mkfs_letters, hint.type));
  }
  return hint;
}

bool is_mountable(std::string_view fstype) {
  return std::ranges::find(kTypes, fstype, &FileSystemType::name) != kTypes.end();
}

bool is_unpacking(const std::string& key, const Labels& labels) {
  // Containerd's keys are NAMESPACE/NUMBER/NAME, and the names for unpacking "extract-... ...".
  const size_t slash = key.rfind('/');
  return key.substr(slash == std::string::npos ? 0 : slash + 1).starts_with("extract-") ||
         labels.contains(label::kSnapshotRef);
}

}  // namespace obd::snapshotter
