// An ext4 (ext3, ext2) that lies on a disk, changed from outside with libext2fs: no mount, no root.
//
// What is not said about a file is the same at every run: ctime and crtime come from the caller, no
// clock is looked at but for the superblock's times. Metadata is held back until close() (see
// block_cache.h), content goes to the disk at once. Whoever needs a change to be whole or absent
// gives a disk that can be thrown away.
//
// Units: bytes. Ownership: refers to the disk. Thread-safety: none. Errors: those of the disk;
// ENOSPC when blocks or inodes have run out; EUCLEAN for a file system that is damaged or has not
// been unmounted; ENOTSUP for one with features that are not known. After one, only destroying the
// object is allowed: what it holds back is dropped.

#pragma once

#include <ext2fs/ext2fs.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/base/result.h"
#include "core/io/file.h"
#include "tools/oci/block_cache.h"
#include "tools/oci/disk.h"
#include "tools/oci/ext4_channel.h"
#include "tools/oci/tar_reader.h"

namespace obd::oci {

using InodeNumber = ext2_ino_t;

struct Metadata {
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t mode = 0;  // permissions, setuid, setgid and sticky bit
  Timestamp atime, mtime, ctime;
};

struct InodeInfo {
  mode_t mode = 0;  // with the type
  uint64_t size = 0;
  uint32_t links = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t major = 0;  // of devices
  uint32_t minor = 0;
  Timestamp mtime;
};

struct DirectoryEntry {
  std::string name;
  InodeNumber inode = 0;
};

class Ext4 {
 public:
  struct Options {
    std::string name;                 // for sentences: where the file system is
    std::optional<int64_t> now = {};  // seconds, for the superblock; without it the clock's
  };

  static constexpr InodeNumber kRoot = EXT2_ROOT_INO;
  static constexpr size_t kMaxName = EXT2_NAME_LEN;
  static constexpr uint32_t kMaxLinks = 65000;

  static Result<std::unique_ptr<Ext4>> open(Disk& disk, Options options);
  ~Ext4();
  Ext4(const Ext4&) = delete;
  Ext4& operator=(const Ext4&) = delete;

  // Writes what has been held back; stable when it returns. Nothing may be called afterwards.
  Result<void> close();

  Result<std::optional<InodeNumber>> lookup(InodeNumber directory, const std::string& name);
  Result<InodeInfo> info(InodeNumber inode);
  Result<std::string> read_link(InodeNumber inode);
  // Of a file; EFBIG for more than `most` bytes.
  Result<std::string> read_content(InodeNumber inode, uint64_t most = uint64_t{1} << 30);
  // In the order in which they are stored; the ACLs' values are as getxattr(2) gives them.
  Result<std::vector<Xattr>> xattrs(InodeNumber inode);
  // Without "." and "..".
  Result<std::vector<DirectoryEntry>> list(InodeNumber directory);

  // The name is free. Owner, times and permissions of what is made are for set_metadata().
  Result<InodeNumber> make_directory(InodeNumber parent, const std::string& name);
  Result<InodeNumber> make_symlink(InodeNumber parent, const std::string& name,
                                   const std::string& target);
  // `type` is S_IFREG, S_IFIFO, S_IFCHR or S_IFBLK; the numbers are those of a device.
  Result<InodeNumber> make_node(InodeNumber parent, const std::string& name, mode_t type,
                                uint32_t major, uint32_t minor);
  // EMLINK when it has as many names as it can have.
  Result<void> add_link(InodeNumber parent, const std::string& name, InodeNumber inode);
  // A directory is empty.
  Result<void> remove(InodeNumber parent, const std::string& name, InodeNumber inode);

  // Fills a file that is empty: `read` is asked for what the ranges hold, front to back. What they
  // leave out becomes a hole.
  using ReadContent = std::function<Result<void>(std::span<std::byte>)>;
  Result<void> set_content(InodeNumber inode, uint64_t size, std::span<const ByteRange> data,
                           const ReadContent& read);

  // Returns a sentence when a time lies outside of what the file system can keep.
  Result<std::optional<std::string>> set_metadata(InodeNumber inode, const Metadata& metadata);

  // With `replace`, what else there was goes away. Names have a namespace that ext4 knows; the
  // ACLs' values are as getxattr(2) gives them.
  Result<void> set_xattrs(InodeNumber inode, std::span<const Xattr> xattrs, bool replace);

  [[nodiscard]] const std::string& name() const { return options_.name; }

 private:
  struct BlockRun {
    uint64_t logical = 0;   // in blocks
    uint64_t physical = 0;  // in blocks
    uint64_t length = 0;    // in blocks
  };

  Ext4(Disk& disk, Options options)
      : options_(std::move(options)), cache_(disk), channel_{.cache = cache_} {}

  Result<void> check_usable(const Disk& disk) const;
  // The disk's own error where there is one, else what libext2fs says.
  [[nodiscard]] std::unexpected<Error> error(errcode_t code, const std::string& what);
  Result<void> check(errcode_t code, const char* what, InodeNumber inode);
  Result<std::vector<std::byte>> read_inode(InodeNumber inode);
  Result<void> write_inode(InodeNumber inode, std::span<std::byte> bytes);
  Result<void> link(InodeNumber parent, const std::string& name, InodeNumber inode, mode_t mode);
  using NameMap = std::unordered_map<std::string, InodeNumber>;
  Result<NameMap*> names_in(InodeNumber directory);
  void remember(InodeNumber directory, const std::string& name, InodeNumber inode);
  Result<void> count_subdirectory(InodeNumber parent, bool added);
  Result<std::vector<BlockRun>> runs_of(InodeNumber inode);
  Result<void> allocate(InodeNumber inode, std::span<const ByteRange> data);
  [[nodiscard]] bool has_extra_times(const ext2_inode_large& inode) const;
  Result<void> free_inode(InodeNumber inode, bool directory);

  const Options options_;
  BlockCache cache_;
  ChannelTarget channel_;
  // What has been looked up: libext2fs reads a directory from its start for every name.
  std::unordered_map<InodeNumber, NameMap> names_;
  size_t names_count_ = 0;
  ext2_filsys fs_ = nullptr;
};

}  // namespace obd::oci
