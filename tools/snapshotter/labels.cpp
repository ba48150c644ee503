#include "tools/snapshotter/labels.h"

#include <cerrno>
#include <charconv>
#include <sstream>

#include "core/base/units.h"
#include "tools/obd/mkfs.h"
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
  if (!tool::check_fstype(hint.type)) {
    return wrong(label::kFileSystem, value,
                 "a type of file system, as ext4, or as ext4;noatime;-m 0");
  }
  if (first != std::string::npos) {
    hint.mount_options = split(
        value.substr(first + 1, second == std::string::npos ? second : second - first - 1), ',');
  }
  if (second != std::string::npos) hint.mkfs_options = split(value.substr(second + 1), ' ');
  return hint;
}

bool is_unpacking(const std::string& key, const Labels& labels) {
  // Containerd's keys are NAMESPACE/NUMBER/NAME, and the names for unpacking "extract-... ...".
  const size_t slash = key.rfind('/');
  return key.substr(slash == std::string::npos ? 0 : slash + 1).starts_with("extract-") ||
         labels.contains(label::kSnapshotRef);
}

}  // namespace obd::snapshotter
