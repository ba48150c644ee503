// A small ext4 on a disk in memory, for tests that change it and look at it.
//
// Thread-safety: none.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/io/file.h"
#include "test/support/memory_file_system.h"
#include "tools/oci/disk.h"
#include "tools/oci/ext4.h"
#include "tools/oci/layer_applier.h"

namespace obd::test {

class Ext4Disk {
 public:
  static constexpr uint64_t kSize = uint64_t{16} << 20;

  // Empty but for its root. Made by mkfs.ext4, once a process for each set of options.
  explicit Ext4Disk(const std::string& mkfs_options = "");

  [[nodiscard]] oci::Disk& disk() { return *disk_; }

  // Applies a tar file and makes it stable.
  Result<oci::AppliedLayer> apply(const std::string& tar);
  // The same for a layer that has to be right; its warnings are kept in `warnings`.
  void apply_right(const std::string& tar);
  std::vector<std::string> warnings;

  // Opens the file system for looking.
  std::unique_ptr<oci::Ext4> open();

  // What e2fsck -fn says, when it finds anything wrong.
  std::string complaints();
  // The disk's bytes.
  std::string bytes();

 private:
  MemoryFileSystem fs_;
  std::unique_ptr<File> file_;
  std::unique_ptr<oci::FileDisk> disk_;
};

// All that is known about all files, a line each: path, type, mode, owner, size, links, times,
// target or digest of the content, extended attributes.
std::vector<std::string> listing(oci::Ext4& fs);

// The content of the file at such a path, without links on the way; "?" when there is none.
std::string content_at(Ext4Disk& disk, const std::string& path);

}  // namespace obd::test
