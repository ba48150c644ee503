// Opening and closing the file system, and its names. What is in a file: ext4_inode.cpp.

#include "tools/oci/ext4.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <mutex>

namespace obd::oci {
namespace {

int errno_of(errcode_t code) {
  switch (code) {
    case EXT2_ET_BLOCK_ALLOC_FAIL:
    case EXT2_ET_INODE_ALLOC_FAIL:
    case EXT2_ET_EA_NO_SPACE:
      return ENOSPC;
    case EXT2_ET_NO_MEMORY:
      return ENOMEM;
    case EXT2_ET_FILE_TOO_BIG:
      return EFBIG;
    case EXT2_ET_UNSUPP_FEATURE:
    case EXT2_ET_RO_UNSUPP_FEATURE:
      return ENOTSUP;
    case EXT2_ET_BAD_MAGIC:
    case EXT2_ET_INVALID_ARGUMENT:
      return EINVAL;
    default:
      return code > 0 && code < 256 ? static_cast<int>(code) : EUCLEAN;
  }
}

const char* hint_for(errcode_t code) {
  switch (code) {
    case EXT2_ET_BLOCK_ALLOC_FAIL:
      return ": the disk is full; make it larger";
    case EXT2_ET_INODE_ALLOC_FAIL:
      return ": there are no inodes left; make the disk larger, or the file system with more "
             "(mkfs's "
             "-N or -i)";
    case EXT2_ET_EA_NO_SPACE:
      return ": a file's extended attributes have to fit into one block";
    default:
      return "";
  }
}

int file_type(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return EXT2_FT_DIR;
    case S_IFLNK:
      return EXT2_FT_SYMLINK;
    case S_IFCHR:
      return EXT2_FT_CHRDEV;
    case S_IFBLK:
      return EXT2_FT_BLKDEV;
    case S_IFIFO:
      return EXT2_FT_FIFO;
    case S_IFSOCK:
      return EXT2_FT_SOCK;
    default:
      return EXT2_FT_REG_FILE;
  }
}

}  // namespace

std::unexpected<Error> Ext4::error(errcode_t code, const std::string& what) {
  if (channel_.error) {
    return fail(channel_.error->code, "{}: {}: {}", options_.name, what, channel_.error->message);
  }
  return fail(errno_of(code), "{}: {}: {}{}", options_.name, what, error_message(code),
              hint_for(code));
}

Result<void> Ext4::check(errcode_t code, const char* what, InodeNumber inode) {
  if (code == 0) return {};
  return error(code, fmt::format("cannot {} inode {}", what, inode));
}

Result<std::unique_ptr<Ext4>> Ext4::open(Disk& disk, Options options) {
  static std::once_flag once;
  std::call_once(once, [] { initialize_ext2_error_table(); });

  std::unique_ptr<Ext4> opened(new Ext4(disk, std::move(options)));
  ext2_filsys& fs = opened->fs_;
  const std::string name = channel_name(opened->channel_);
  const errcode_t code = ext2fs_open2(name.c_str(), nullptr, EXT2_FLAG_RW | EXT2_FLAG_64BITS, 0, 0,
                                      channel_manager(), &fs);
  if (code != 0) {
    fs = nullptr;
    const bool none = code == EXT2_ET_BAD_MAGIC || code == EXT2_ET_SHORT_READ;
    return opened->error(code, none ? "there is no ext4 on the disk" : "cannot open the ext4");
  }
  OBD_TRY(opened->check_usable(disk));
  if (opened->options_.now) fs->now = static_cast<time_t>(*opened->options_.now);
  if (const errcode_t failed = ext2fs_read_bitmaps(fs); failed != 0) {
    return opened->error(failed, "cannot read the bitmaps");
  }
  return opened;
}

Result<void> Ext4::check_usable(const Disk& disk) const {
  const ext2_super_block& super = *fs_->super;
  const auto refuse = [&](const char* feature) {
    return fail(ENOTSUP, "{}: has the feature {}, and a file system with it cannot be changed here",
                options_.name, feature);
  };
  if (ext2fs_has_feature_bigalloc(fs_->super) != 0) return refuse("bigalloc");
  if (ext2fs_has_feature_quota(fs_->super) != 0) return refuse("quota");
  if (ext2fs_has_feature_casefold(fs_->super) != 0) return refuse("casefold");
  if (ext2fs_has_feature_encrypt(fs_->super) != 0) return refuse("encrypt");
  if (ext2fs_has_feature_mmp(fs_->super) != 0) return refuse("mmp");
  if (ext2fs_has_feature_journal_needs_recovery(fs_->super) != 0) {
    return fail(EUCLEAN,
                "{}: was not unmounted: mount it once and unmount it, or run e2fsck on the served "
                "disk",
                options_.name);
  }
  if ((super.s_state & EXT2_VALID_FS) == 0 || (super.s_state & EXT2_ERROR_FS) != 0) {
    return fail(EUCLEAN, "{}: is not clean: run e2fsck on the served disk", options_.name);
  }
  const uint64_t blocks = ext2fs_blocks_count(fs_->super);
  if (blocks > disk.size() / fs_->blocksize) {
    return fail(EUCLEAN, "{}: has {} blocks of {} bytes, more than the disk of {} bytes",
                options_.name, blocks, fs_->blocksize, disk.size());
  }
  return {};
}

Ext4::~Ext4() {
  // Frees it without writing anything.
  if (fs_ != nullptr) ext2fs_free(fs_);
}

Result<void> Ext4::close() {
  channel_.closing = true;
  if (const errcode_t code = ext2fs_flush(fs_); code != 0) return error(code, "cannot write");
  channel_.closing = false;
  ext2fs_free(fs_);
  fs_ = nullptr;
  // Libext2fs drops the results of some of its writes.
  if (channel_.error) return error(0, "cannot write");
  return cache_.flush();
}

// --- names ---

Result<Ext4::NameMap*> Ext4::names_in(InodeNumber directory) {
  const auto found = names_.find(directory);
  if (found != names_.end()) return &found->second;
  OBD_TRY_ASSIGN(const auto entries, list(directory));
  constexpr size_t kMostNames = size_t{1} << 20;
  if (names_count_ + entries.size() > kMostNames) {
    names_.clear();
    names_count_ = 0;
  }
  NameMap& names = names_[directory];
  for (const DirectoryEntry& entry : entries) names.emplace(entry.name, entry.inode);
  names_count_ += names.size();
  return &names;
}

void Ext4::remember(InodeNumber directory, const std::string& name, InodeNumber inode) {
  const auto found = names_.find(directory);
  if (found == names_.end()) return;
  found->second.insert_or_assign(name, inode);
  ++names_count_;
}

Result<std::optional<InodeNumber>> Ext4::lookup(InodeNumber directory, const std::string& name) {
  OBD_TRY_ASSIGN(const NameMap* names, names_in(directory));
  const auto found = names->find(name);
  return found == names->end() ? std::optional<InodeNumber>() : std::optional(found->second);
}

Result<std::vector<DirectoryEntry>> Ext4::list(InodeNumber directory) {
  std::vector<DirectoryEntry> entries;
  const auto add = [](InodeNumber, int, ext2_dir_entry* found, int, int, char*, void* data) -> int {
    std::string name(found->name, static_cast<size_t>(ext2fs_dirent_name_len(found)));
    if (name == "." || name == "..") return 0;
    static_cast<std::vector<DirectoryEntry>*>(data)->push_back({std::move(name), found->inode});
    return 0;
  };
  OBD_TRY(check(ext2fs_dir_iterate2(fs_, directory, 0, nullptr, add, &entries),
                "read the directory in", directory));
  for (const DirectoryEntry& entry : entries) {
    if (entry.inode == 0 || entry.inode > fs_->super->s_inodes_count) {
      return fail(EUCLEAN, "{}: the directory in inode {} names an inode that is not there, {}",
                  options_.name, directory, entry.inode);
    }
  }
  return entries;
}

Result<void> Ext4::link(InodeNumber parent, const std::string& name, InodeNumber inode,
                        mode_t mode) {
  errcode_t code = ext2fs_link(fs_, parent, name.c_str(), inode, file_type(mode));
  if (code == EXT2_ET_DIR_NO_SPACE) {
    OBD_TRY(check(ext2fs_expand_dir(fs_, parent), "enlarge the directory in", parent));
    code = ext2fs_link(fs_, parent, name.c_str(), inode, file_type(mode));
  }
  OBD_TRY(check(code, "add a name to the directory in", parent));
  remember(parent, name, inode);
  return {};
}

// A directory with too many subdirectories for its count has 1 in it.
Result<void> Ext4::count_subdirectory(InodeNumber parent, bool added) {
  OBD_TRY_ASSIGN(std::vector<std::byte> bytes, read_inode(parent));
  auto& inode = *reinterpret_cast<ext2_inode_large*>(bytes.data());
  if (inode.i_links_count == 1) return {};
  if (added) {
    inode.i_links_count =
        static_cast<uint16_t>(inode.i_links_count + 1U >= kMaxLinks ? 1 : inode.i_links_count + 1);
    if (inode.i_links_count == 1) ext2fs_set_feature_dir_nlink(fs_->super);
  } else if (inode.i_links_count > 2) {
    --inode.i_links_count;
  }
  return write_inode(parent, bytes);
}

Result<InodeNumber> Ext4::make_directory(InodeNumber parent, const std::string& name) {
  // Ext2fs_mkdir() would count it in the parent whatever is there.
  OBD_TRY_ASSIGN(const std::vector<std::byte> before, read_inode(parent));
  InodeNumber made = 0;
  OBD_TRY(
      check(ext2fs_new_inode(fs_, parent, S_IFDIR, nullptr, &made), "find an inode near", parent));
  errcode_t code = ext2fs_mkdir(fs_, parent, made, name.c_str());
  if (code == EXT2_ET_DIR_NO_SPACE) {
    OBD_TRY(check(ext2fs_expand_dir(fs_, parent), "enlarge the directory in", parent));
    code = ext2fs_mkdir(fs_, parent, made, name.c_str());
  }
  OBD_TRY(check(code, "make a directory in", parent));
  OBD_TRY_ASSIGN(std::vector<std::byte> after, read_inode(parent));
  auto& inode = *reinterpret_cast<ext2_inode_large*>(after.data());
  inode.i_links_count = reinterpret_cast<const ext2_inode_large*>(before.data())->i_links_count;
  OBD_TRY(write_inode(parent, after));
  OBD_TRY(count_subdirectory(parent, true));
  remember(parent, name, made);
  names_.try_emplace(made);
  return made;
}

Result<InodeNumber> Ext4::make_symlink(InodeNumber parent, const std::string& name,
                                       const std::string& target) {
  if (target.size() >= fs_->blocksize) {
    return fail(ENAMETOOLONG, "{}: a symbolic link of {} bytes does not fit into a block of {}",
                options_.name, target.size(), fs_->blocksize);
  }
  InodeNumber made = 0;
  OBD_TRY(check(ext2fs_new_inode(fs_, parent, S_IFLNK | 0777, nullptr, &made), "find an inode near",
                parent));
  errcode_t code = ext2fs_symlink(fs_, parent, made, name.c_str(), target.c_str());
  if (code == EXT2_ET_DIR_NO_SPACE) {
    OBD_TRY(check(ext2fs_expand_dir(fs_, parent), "enlarge the directory in", parent));
    code = ext2fs_symlink(fs_, parent, made, name.c_str(), target.c_str());
  }
  OBD_TRY(check(code, "make a symbolic link in", parent));
  remember(parent, name, made);
  return made;
}

Result<InodeNumber> Ext4::make_node(InodeNumber parent, const std::string& name, mode_t type,
                                    uint32_t major, uint32_t minor) {
  InodeNumber made = 0;
  OBD_TRY(check(ext2fs_new_inode(fs_, parent, static_cast<int>(type), nullptr, &made),
                "find an inode near", parent));
  ext2_inode inode{};
  inode.i_mode = static_cast<uint16_t>(type);
  inode.i_links_count = 1;
  if (type == S_IFCHR || type == S_IFBLK) {
    // The kernel's two encodings of a device's numbers.
    if (major < 256 && minor < 256) {
      inode.i_block[0] = major << 8 | minor;
    } else {
      inode.i_block[1] = (minor & 0xFF) | major << 8 | (minor & ~0xFFU) << 12;
    }
  } else if (type == S_IFREG && ext2fs_has_feature_extents(fs_->super) != 0) {
    // Opening an empty inode that says nothing of extents writes an empty tree into it.
    ext2_extent_handle_t handle = nullptr;
    OBD_TRY(check(ext2fs_extent_open2(fs_, made, &inode, &handle), "set up", made));
    ext2fs_extent_free(handle);
  }
  OBD_TRY(check(ext2fs_write_new_inode(fs_, made, &inode), "write", made));
  ext2fs_inode_alloc_stats2(fs_, made, +1, 0);
  OBD_TRY(link(parent, name, made, type));
  return made;
}

Result<void> Ext4::add_link(InodeNumber parent, const std::string& name, InodeNumber inode) {
  OBD_TRY_ASSIGN(std::vector<std::byte> bytes, read_inode(inode));
  auto& found = *reinterpret_cast<ext2_inode_large*>(bytes.data());
  if (found.i_links_count >= kMaxLinks) {
    return fail(EMLINK, "{}: inode {} has {} names, and more are not possible", options_.name,
                inode, found.i_links_count);
  }
  ++found.i_links_count;
  const mode_t mode = found.i_mode;
  OBD_TRY(write_inode(inode, bytes));
  return link(parent, name, inode, mode);
}

Result<void> Ext4::remove(InodeNumber parent, const std::string& name, InodeNumber inode) {
  OBD_TRY(check(ext2fs_unlink(fs_, parent, name.c_str(), inode, 0),
                "remove a name from the directory in", parent));
  if (const auto names = names_.find(parent); names != names_.end()) names->second.erase(name);
  OBD_TRY_ASSIGN(std::vector<std::byte> bytes, read_inode(inode));
  auto& found = *reinterpret_cast<ext2_inode_large*>(bytes.data());
  if (LINUX_S_ISDIR(found.i_mode)) {
    names_.erase(inode);
    OBD_TRY(free_inode(inode, true));
    return count_subdirectory(parent, false);
  }
  if (found.i_links_count > 1) {
    --found.i_links_count;
    return write_inode(inode, bytes);
  }
  return free_inode(inode, false);
}

}  // namespace obd::oci
