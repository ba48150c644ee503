// Labels of snapshots that mean something here. They are overlaybd's, and containerd's where the
// name says so.
//
// Thread-safety: pure functions. Errors: EINVAL names the label and its value.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "tools/snapshotter/config.h"
#include "tools/snapshotter/disk.h"
#include "tools/snapshotter/store.h"

namespace obd::snapshotter {

namespace label {
inline constexpr const char* kWritable = "containerd.io/snapshot/overlaybd.writable";
inline constexpr const char* kCommitPath = "containerd.io/snapshot/overlaybd.localcommitpath";
inline constexpr const char* kVirtualSize = "containerd.io/snapshot/overlaybd/vsize";
inline constexpr const char* kBlobDigest = "containerd.io/snapshot/overlaybd/blob-digest";
inline constexpr const char* kFileSystem = "containerd.io/snapshot/overlaybd/blob-fs-type";
inline constexpr const char* kQuota = "containerd.io/snapshot/disk_quota";
inline constexpr const char* kSnapshotRef = "containerd.io/snapshot.ref";
}  // namespace label

// As containerd's: a name and its value have at most 4096 bytes together.
Result<void> check_labels(const Labels& labels);

// The value, empty when there is none.
std::string label_value(const Labels& labels, const char* name);

// nullopt: it is not said.
Result<std::optional<Mode>> asked_mode(const Labels& labels);
Result<uint64_t> asked_size(const Labels& labels);   // bytes; 0: not said
Result<uint64_t> asked_quota(const Labels& labels);  // bytes; 0: not said
// TYPE;MOUNT OPTIONS;MKFS OPTIONS. Mount options have commas between them, mkfs options spaces.
Result<FileSystemHint> file_system_hint(const Labels& labels);

// Whether a file system of this type is mounted when it is found on a disk, or a label names it.
bool is_mountable(std::string_view fstype);

// Whether a snapshot is made to unpack a layer of an image, and for no container.
bool is_unpacking(const std::string& key, const Labels& labels);

}  // namespace obd::snapshotter
