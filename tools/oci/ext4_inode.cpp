// What is in a file, and what is known about it. Names: ext4.cpp.

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tools/oci/ext4.h"

namespace obd::oci {
namespace {

constexpr size_t kMostAtOnce = size_t{1} << 20;
constexpr uint64_t kMaxLogicalBlocks = 0xFFFFFFFF;
constexpr size_t kSmallInode = EXT2_GOOD_OLD_INODE_SIZE;

ext2_inode_large& inode_in(std::vector<std::byte>& bytes) {
  return *reinterpret_cast<ext2_inode_large*>(bytes.data());
}

ext2_inode* as_small(std::span<std::byte> bytes) {
  return reinterpret_cast<ext2_inode*>(bytes.data());
}

uint64_t size_of(const ext2_inode_large& inode) {
  return uint64_t{inode.i_size_high} << 32 | inode.i_size;
}

// 34 bits of seconds from 1901 on: the lower 32 as a signed number, and in the extra field how many
// times 2^32 have to be added, beside the nanoseconds. False: another time, the nearest, was kept.
bool store_time(const Timestamp& time, bool has_extra, uint32_t& seconds, uint32_t& extra) {
  constexpr int64_t kFirst = -(int64_t{1} << 31);
  const int64_t last = has_extra ? (int64_t{1} << 34) + kFirst - 1 : -kFirst - 1;
  const int64_t kept = std::clamp(time.seconds, kFirst, last);
  seconds = static_cast<uint32_t>(kept & 0xFFFFFFFF);
  if (has_extra) {
    const int64_t epoch = (kept - static_cast<int32_t>(seconds)) >> 32;
    extra = static_cast<uint32_t>(epoch & 3) | (kept == time.seconds ? time.nanoseconds : 0) << 2;
  }
  return kept == time.seconds;
}

Timestamp load_time(uint32_t seconds, uint32_t extra) {
  return {static_cast<int32_t>(seconds) + (int64_t{extra & 3} << 32), extra >> 2};
}

// Closed whatever happens.
using Attributes = std::unique_ptr<ext2_xattr_handle, void (*)(ext2_xattr_handle*)>;

void close_attributes(ext2_xattr_handle* open) { static_cast<void>(ext2fs_xattrs_close(&open)); }

}  // namespace

Result<std::vector<std::byte>> Ext4::read_inode(InodeNumber inode) {
  std::vector<std::byte> bytes(
      std::max<size_t>(EXT2_INODE_SIZE(fs_->super), sizeof(ext2_inode_large)));
  OBD_TRY(check(ext2fs_read_inode_full(fs_, inode, as_small(bytes),
                                       static_cast<int>(EXT2_INODE_SIZE(fs_->super))),
                "read", inode));
  return bytes;
}

Result<void> Ext4::write_inode(InodeNumber inode, std::span<std::byte> bytes) {
  return check(ext2fs_write_inode_full(fs_, inode, as_small(bytes),
                                       static_cast<int>(EXT2_INODE_SIZE(fs_->super))),
               "write", inode);
}

Result<InodeInfo> Ext4::info(InodeNumber inode) {
  OBD_TRY_ASSIGN(std::vector<std::byte> bytes, read_inode(inode));
  const ext2_inode_large& found = inode_in(bytes);
  if (found.i_mode == 0 || found.i_links_count == 0) {
    return fail(EUCLEAN,
                "{}: inode {} has a name, and is not in use: run e2fsck on the served disk",
                options_.name, inode);
  }
  InodeInfo info{
      .mode = found.i_mode,
      .size = size_of(found),
      .links = found.i_links_count,
      .uid = uint32_t{found.i_uid_high} << 16 | found.i_uid,
      .gid = uint32_t{found.i_gid_high} << 16 | found.i_gid,
      .mtime = load_time(found.i_mtime, has_extra_times(found) ? found.i_mtime_extra : 0)};
  if (S_ISCHR(info.mode) || S_ISBLK(info.mode)) {
    if (const uint32_t old = found.i_block[0]; old != 0) {
      info.major = old >> 8 & 0xFF;
      info.minor = old & 0xFF;
    } else {
      const uint32_t packed = found.i_block[1];
      info.major = packed >> 8 & 0xFFF;
      info.minor = (packed & 0xFF) | (packed >> 12 & 0xFFF00);
    }
  }
  return info;
}

bool Ext4::has_extra_times(const ext2_inode_large& inode) const {
  return EXT2_INODE_SIZE(fs_->super) > kSmallInode &&
         kSmallInode + inode.i_extra_isize >=
             offsetof(ext2_inode_large, i_crtime_extra) + sizeof(inode.i_crtime_extra);
}

Result<std::string> Ext4::read_content(InodeNumber inode, uint64_t most) {
  OBD_TRY_ASSIGN(const InodeInfo found, info(inode));
  if (found.size > most) {
    return fail(EFBIG, "{}: inode {} has {} bytes, more than {}", options_.name, inode, found.size,
                most);
  }
  ext2_file_t file = nullptr;
  OBD_TRY(check(ext2fs_file_open(fs_, inode, 0, &file), "open", inode));
  std::string content(found.size, '\0');
  errcode_t code = 0;
  size_t done = 0;
  while (code == 0 && done < content.size()) {
    unsigned got = 0;
    const size_t piece = std::min(content.size() - done, kMostAtOnce);
    code = ext2fs_file_read(file, content.data() + done, static_cast<unsigned>(piece), &got);
    if (got == 0) break;
    done += got;
  }
  const errcode_t closed = ext2fs_file_close(file);
  OBD_TRY(check(code != 0 ? code : closed, "read", inode));
  if (done < content.size()) return fail(EUCLEAN, "{}: inode {} ends early", options_.name, inode);
  return content;
}

Result<std::string> Ext4::read_link(InodeNumber inode) {
  OBD_TRY_ASSIGN(std::vector<std::byte> bytes, read_inode(inode));
  const ext2_inode_large& found = inode_in(bytes);
  const uint64_t size = size_of(found);
  if (size == 0 || size >= fs_->blocksize) {
    return fail(EUCLEAN, "{}: inode {}: size {} is none that a symbolic link can have",
                options_.name, inode, size);
  }
  if (ext2fs_is_fast_symlink(as_small(bytes)) != 0) {
    if (size > sizeof(found.i_block)) {
      return fail(EUCLEAN, "{}: inode {}: size {} is too large for a short link", options_.name,
                  inode, size);
    }
    return std::string(reinterpret_cast<const char*>(found.i_block), size);
  }
  return read_content(inode, size);
}

// It has no name any more. Zeroed, so that nothing of it is told, not even when it went.
Result<void> Ext4::free_inode(InodeNumber inode, bool directory) {
  OBD_TRY(check(ext2fs_free_ext_attr(fs_, inode, nullptr), "free the attributes of", inode));
  OBD_TRY_ASSIGN(std::vector<std::byte> bytes, read_inode(inode));
  if (ext2fs_inode_has_valid_blocks2(fs_, as_small(bytes)) != 0) {
    OBD_TRY(check(ext2fs_punch(fs_, inode, as_small(bytes), nullptr, 0, ~blk64_t{0}),
                  "free the blocks of", inode));
  }
  std::ranges::fill(bytes, std::byte{0});
  OBD_TRY(write_inode(inode, bytes));
  ext2fs_inode_alloc_stats2(fs_, inode, -1, directory ? 1 : 0);
  return {};
}

// --- content ---

// Gives the inode all blocks that the ranges touch.
Result<void> Ext4::allocate(InodeNumber inode, std::span<const ByteRange> data) {
  const uint64_t unit = fs_->blocksize;
  for (size_t i = 0; i < data.size();) {
    const uint64_t begin = data[i].offset / unit;
    uint64_t end = begin;
    // Ranges that meet within a block are allocated together.
    for (; i < data.size() && data[i].offset / unit <= end; ++i) {
      end = (data[i].offset + data[i].length + unit - 1) / unit;
    }
    if (end - begin > ext2fs_free_blocks_count(fs_->super)) {
      return error(EXT2_ET_BLOCK_ALLOC_FAIL,
                   fmt::format("{} bytes are needed", (end - begin) * unit));
    }
    OBD_TRY(check(ext2fs_fallocate(fs_, EXT2_FALLOCATE_FORCE_INIT, inode, nullptr, ~blk64_t{0},
                                   begin, end - begin),
                  "allocate blocks for", inode));
  }
  return {};
}

Result<std::vector<Ext4::BlockRun>> Ext4::runs_of(InodeNumber inode) {
  std::vector<BlockRun> runs;
  const auto add = [](ext2_filsys, blk64_t* block, e2_blkcnt_t number, blk64_t, int,
                      void* data) -> int {
    auto& found = *static_cast<std::vector<BlockRun>*>(data);
    const auto logical = static_cast<uint64_t>(number);
    if (!found.empty() && found.back().logical + found.back().length == logical &&
        found.back().physical + found.back().length == *block) {
      ++found.back().length;
    } else {
      found.push_back({logical, *block, 1});
    }
    return 0;
  };
  OBD_TRY(check(ext2fs_block_iterate3(fs_, inode, BLOCK_FLAG_READ_ONLY | BLOCK_FLAG_DATA_ONLY,
                                      nullptr, add, &runs),
                "find the blocks of", inode));
  return runs;
}

Result<void> Ext4::set_content(InodeNumber inode, uint64_t size, std::span<const ByteRange> data,
                               const ReadContent& read) {
  const uint64_t unit = fs_->blocksize;
  if (size / unit >= kMaxLogicalBlocks) {
    return fail(EFBIG, "{}: a file of {} bytes is larger than it can have", options_.name, size);
  }
  OBD_TRY(allocate(inode, data));
  OBD_TRY_ASSIGN(std::vector<std::byte> bytes, read_inode(inode));
  OBD_TRY(check(ext2fs_inode_size_set(fs_, as_small(bytes), static_cast<ext2_off64_t>(size)),
                "set the size of", inode));
  OBD_TRY(write_inode(inode, bytes));
  if (data.empty()) return {};

  OBD_TRY_ASSIGN(const std::vector<BlockRun> runs, runs_of(inode));
  std::vector<std::byte> buffer;
  size_t next = 0;     // range
  uint64_t begun = 0;  // bytes of that range that have been read
  for (const BlockRun& run : runs) {
    for (uint64_t done = 0; done < run.length;) {
      const uint64_t blocks = std::min(run.length - done, kMostAtOnce / unit);
      const uint64_t begin = (run.logical + done) * unit;
      const uint64_t end = begin + blocks * unit;
      buffer.assign(blocks * unit, std::byte{0});
      while (next < data.size() && data[next].offset + begun < end) {
        const uint64_t from = data[next].offset + begun;
        if (from < begin) {
          return fail(EUCLEAN, "{}: inode {}: byte {} was given no block", options_.name, inode,
                      from);
        }
        const uint64_t length = std::min(end - from, data[next].length - begun);
        OBD_TRY(read(std::span(buffer).subspan(from - begin, length)));
        begun += length;
        if (begun == data[next].length) {
          ++next;
          begun = 0;
        }
      }
      OBD_TRY(cache_.write_through(buffer, (run.physical + done) * unit));
      done += blocks;
    }
  }
  if (next < data.size()) {
    return fail(EUCLEAN, "{}: inode {}: byte {} was given no block", options_.name, inode,
                data[next].offset);
  }
  return {};
}

// --- what is known about it ---

Result<std::optional<std::string>> Ext4::set_metadata(InodeNumber inode, const Metadata& metadata) {
  OBD_TRY_ASSIGN(std::vector<std::byte> bytes, read_inode(inode));
  ext2_inode_large& changed = inode_in(bytes);
  changed.i_mode = static_cast<uint16_t>((changed.i_mode & S_IFMT) | (metadata.mode & 07777));
  changed.i_uid = static_cast<uint16_t>(metadata.uid & 0xFFFF);
  changed.i_uid_high = static_cast<uint16_t>(metadata.uid >> 16);
  changed.i_gid = static_cast<uint16_t>(metadata.gid & 0xFFFF);
  changed.i_gid_high = static_cast<uint16_t>(metadata.gid >> 16);
  const bool has_extra = has_extra_times(changed);
  bool exact = store_time(metadata.atime, has_extra, changed.i_atime, changed.i_atime_extra);
  exact = store_time(metadata.mtime, has_extra, changed.i_mtime, changed.i_mtime_extra) && exact;
  exact = store_time(metadata.ctime, has_extra, changed.i_ctime, changed.i_ctime_extra) && exact;
  if (has_extra) {
    static_cast<void>(store_time(metadata.ctime, true, changed.i_crtime, changed.i_crtime_extra));
  }
  OBD_TRY(write_inode(inode, bytes));
  if (exact) return std::optional<std::string>();
  return std::optional(
      fmt::format("the time {} is none that this file system can keep; the nearest "
                  "one that it can is",
                  metadata.mtime.seconds));
}

Result<std::vector<Xattr>> Ext4::xattrs(InodeNumber inode) {
  ext2_xattr_handle* handle = nullptr;
  OBD_TRY(check(ext2fs_xattrs_open(fs_, inode, &handle), "open the attributes of", inode));
  const Attributes closer(handle, &close_attributes);
  OBD_TRY(check(ext2fs_xattrs_read(handle), "read the attributes of", inode));
  std::vector<std::string> names;
  const auto add_name = [](char* name, char*, size_t, void* data) -> int {
    static_cast<std::vector<std::string>*>(data)->emplace_back(name);
    return 0;
  };
  OBD_TRY(check(ext2fs_xattrs_iterate(handle, add_name, &names), "read the attributes of", inode));
  std::vector<Xattr> found;
  for (std::string& name : names) {
    // An inode's own content, not an attribute that anybody gave it.
    if (name == "system.data") continue;
    void* value = nullptr;
    size_t size = 0;
    OBD_TRY(check(ext2fs_xattr_get(handle, name.c_str(), &value, &size), "read the attributes of",
                  inode));
    found.push_back({std::move(name), std::string(static_cast<const char*>(value), size)});
    ext2fs_free_mem(&value);
  }
  return found;
}

Result<void> Ext4::set_xattrs(InodeNumber inode, std::span<const Xattr> xattrs, bool replace) {
  std::vector<Xattr> old;
  if (replace) {
    OBD_TRY_ASSIGN(old, this->xattrs(inode));
  }
  if (xattrs.empty() && old.empty()) return {};
  ext2_xattr_handle* handle = nullptr;
  OBD_TRY(check(ext2fs_xattrs_open(fs_, inode, &handle), "open the attributes of", inode));
  const Attributes closer(handle, &close_attributes);
  OBD_TRY(check(ext2fs_xattrs_read(handle), "read the attributes of", inode));
  for (const Xattr& xattr : old) {
    OBD_TRY(
        check(ext2fs_xattr_remove(handle, xattr.name.c_str()), "remove an attribute of", inode));
  }
  for (const Xattr& xattr : xattrs) {
    const errcode_t code =
        ext2fs_xattr_set(handle, xattr.name.c_str(), xattr.value.data(), xattr.value.size());
    if (code != 0) {
      return error(code, fmt::format("cannot give inode {} the extended attribute '{}' of {} bytes",
                                     inode, shown(xattr.name), xattr.value.size()));
    }
  }
  return check(ext2fs_xattrs_write(handle), "write the attributes of", inode);
}

}  // namespace obd::oci
