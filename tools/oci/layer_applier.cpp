#include "tools/oci/layer_applier.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <string_view>
#include <unordered_set>

#include "tools/oci/acl.h"

namespace obd::oci {
namespace {

constexpr std::string_view kWhiteout = ".wh.";
constexpr std::string_view kOpaque = ".wh..wh..opq";
// What aufs kept for itself at the root of its layers.
constexpr std::string_view kAufs = ".wh..wh.";
constexpr size_t kMaxPath = 4095;
constexpr size_t kMaxDepth = 2048;
constexpr size_t kMaxLinksFollowed = 255;
constexpr size_t kMaxXattrValue = 65536;
constexpr uint32_t kImplicitMode = 0755;

using Names = std::deque<std::string>;

// Without empty names and ".", and each ".." taken back together with the name before it; those at
// the root lead nowhere.
Result<Names> clean_path(std::string_view path) {
  if (path.size() > kMaxPath) {
    return fail(ENAMETOOLONG, "the path has {} bytes, more than {}", path.size(), kMaxPath);
  }
  Names names;
  while (!path.empty()) {
    const std::string_view name = path.substr(0, path.find('/'));
    path.remove_prefix(std::min(path.size(), name.size() + 1));
    if (name.empty() || name == ".") continue;
    if (name == "..") {
      if (!names.empty()) names.pop_back();
      continue;
    }
    if (name.size() > Ext4::kMaxName) {
      return fail(ENAMETOOLONG, "the name '{}' has {} bytes, more than {}", shown(name),
                  name.size(), Ext4::kMaxName);
    }
    names.emplace_back(name);
  }
  return names;
}

// Which name in which directory, for a set.
std::string key_of(InodeNumber parent, std::string_view name) {
  std::string key(reinterpret_cast<const char*>(&parent), sizeof(parent));
  return key.append(name);
}

class Applier {
 public:
  Applier(Ext4& target, TarReader& layer) : fs_(target), layer_(layer) {}

  Result<void> apply(const TarEntry& entry);

  AppliedLayer done;

 private:
  // A directory on the way from the root; of the root, the name is empty.
  struct Step {
    InodeNumber inode;
    std::string name;
  };
  using Way = std::vector<Step>;

  enum class Missing { make, refuse };

  Result<Way> walk(Names names, Missing missing, const TarEntry& entry);
  Result<InodeNumber> make_way(const Way& way, const std::string& name, const TarEntry& entry);
  Result<void> remove_tree(InodeNumber parent, const std::string& name, InodeNumber inode);
  Result<void> remove_lower(InodeNumber parent, const std::string& name, InodeNumber inode);
  Result<void> clear_lower(InodeNumber directory);
  Result<void> apply_whiteout(const Way& way, const std::string& name);
  Result<void> apply_root(const TarEntry& entry);
  Result<void> apply_hard_link(const Way& way, const std::string& name, const TarEntry& entry);
  Result<InodeNumber> place(const Way& way, const std::string& name, const TarEntry& entry);
  Result<InodeNumber> make(InodeNumber parent, const std::string& name, const TarEntry& entry);
  Result<void> set_attributes(InodeNumber inode, const TarEntry& entry, bool replace);
  Result<std::vector<Xattr>> xattrs_of(const TarEntry& entry, bool directory, bool symlink,
                                       uint32_t& mode);
  void keep(const Way& way, const std::string& name);

  void warn(std::string_view what) {
    done.warnings.push_back(fmt::format("{}: {}", layer_.where(), what));
  }

  Ext4& fs_;
  TarReader& layer_;
  // Names that this layer has brought, and the directories above them: whiteouts leave them.
  std::unordered_set<std::string> kept_;
};

// --- finding places ---

Result<Applier::Way> Applier::walk(Names names, Missing missing, const TarEntry& entry) {
  Way way = {{Ext4::kRoot, ""}};
  size_t links = 0;
  while (!names.empty()) {
    const std::string name = std::move(names.front());
    names.pop_front();
    if (name.empty() || name == ".") continue;
    if (name == "..") {
      if (way.size() > 1) way.pop_back();
      continue;
    }
    if (way.size() == kMaxDepth)
      return fail(ELOOP, "it lies more than {} directories deep", kMaxDepth);
    OBD_TRY_ASSIGN(const auto found, fs_.lookup(way.back().inode, name));
    if (!found) {
      if (missing == Missing::refuse) return fail(ENOENT, "there is no '{}'", shown(name));
      OBD_TRY_ASSIGN(const InodeNumber made, make_way(way, name, entry));
      way.push_back({made, name});
      continue;
    }
    OBD_TRY_ASSIGN(const InodeInfo info, fs_.info(*found));
    if (S_ISDIR(info.mode)) {
      way.push_back({*found, name});
      continue;
    }
    if (!S_ISLNK(info.mode)) {
      return fail(ENOTDIR, "it lies below '{}', and that is no directory", shown(name));
    }
    if (++links > kMaxLinksFollowed) return fail(ELOOP, "too many symbolic links lead to it");
    OBD_TRY_ASSIGN(const std::string target, fs_.read_link(*found));
    if (target.starts_with('/')) way.resize(1);
    Names parts;
    for (std::string_view rest = target; !rest.empty();) {
      const std::string_view part = rest.substr(0, rest.find('/'));
      rest.remove_prefix(std::min(rest.size(), part.size() + 1));
      if (part.size() > Ext4::kMaxName) return fail(ENAMETOOLONG, "a link on the way is too long");
      parts.emplace_back(part);
    }
    names.insert(names.begin(), parts.begin(), parts.end());
  }
  return way;
}

// A directory that nobody describes.
Result<InodeNumber> Applier::make_way(const Way& way, const std::string& name,
                                      const TarEntry& entry) {
  OBD_TRY_ASSIGN(const InodeNumber made, fs_.make_directory(way.back().inode, name));
  const Metadata metadata{
      .mode = kImplicitMode, .atime = entry.mtime, .mtime = entry.mtime, .ctime = entry.mtime};
  OBD_TRY(fs_.set_metadata(made, metadata));
  return made;
}

void Applier::keep(const Way& way, const std::string& name) {
  if (!kept_.insert(key_of(way.back().inode, name)).second) return;
  for (size_t i = way.size(); i-- > 1;) {
    // What is above one that is kept is kept.
    if (!kept_.insert(key_of(way[i - 1].inode, way[i].name)).second) return;
  }
}

// --- removing ---

// With all that is in it. Not by recursion: what is on the disk decides how deep it is.
Result<void> Applier::remove_tree(InodeNumber parent, const std::string& name, InodeNumber inode) {
  struct Frame {
    InodeNumber parent;
    DirectoryEntry self;
    std::vector<DirectoryEntry> children;
  };
  std::vector<Frame> frames;
  std::unordered_set<InodeNumber> open;
  const auto enter = [&](InodeNumber above, DirectoryEntry self) -> Result<void> {
    OBD_TRY_ASSIGN(const InodeInfo info, fs_.info(self.inode));
    Frame frame{above, std::move(self), {}};
    if (S_ISDIR(info.mode)) {
      if (frame.self.inode == Ext4::kRoot || !open.insert(frame.self.inode).second) {
        return fail(EUCLEAN, "{}: the directory in inode {} lies within itself", fs_.name(),
                    frame.self.inode);
      }
      OBD_TRY_ASSIGN(frame.children, fs_.list(frame.self.inode));
    }
    frames.push_back(std::move(frame));
    return {};
  };
  OBD_TRY(enter(parent, {name, inode}));
  while (!frames.empty()) {
    Frame& top = frames.back();
    if (!top.children.empty()) {
      DirectoryEntry child = std::move(top.children.back());
      top.children.pop_back();
      const InodeNumber above = top.self.inode;
      OBD_TRY(enter(above, std::move(child)));
      continue;
    }
    OBD_TRY(fs_.remove(top.parent, top.self.name, top.self.inode));
    kept_.erase(key_of(top.parent, top.self.name));
    open.erase(top.self.inode);
    frames.pop_back();
  }
  return {};
}

// What comes from the layers below goes.
Result<void> Applier::remove_lower(InodeNumber parent, const std::string& name, InodeNumber inode) {
  if (!kept_.contains(key_of(parent, name))) return remove_tree(parent, name, inode);
  OBD_TRY_ASSIGN(const InodeInfo info, fs_.info(inode));
  return S_ISDIR(info.mode) ? clear_lower(inode) : Result<void>();
}

Result<void> Applier::clear_lower(InodeNumber directory) {
  OBD_TRY_ASSIGN(const auto children, fs_.list(directory));
  for (const DirectoryEntry& child : children) {
    OBD_TRY(remove_lower(directory, child.name, child.inode));
  }
  return {};
}

Result<void> Applier::apply_whiteout(const Way& way, const std::string& name) {
  ++done.whiteouts;
  const InodeNumber parent = way.back().inode;
  if (name == kOpaque) return clear_lower(parent);
  const std::string hidden = name.substr(kWhiteout.size());
  if (hidden.empty() || hidden == "." || hidden == "..") {
    return fail(EINVAL, "the whiteout names nothing that could be removed");
  }
  OBD_TRY_ASSIGN(const auto found, fs_.lookup(parent, hidden));
  return found ? remove_lower(parent, hidden, *found) : Result<void>();
}

// --- making ---

Result<InodeNumber> Applier::make(InodeNumber parent, const std::string& name,
                                  const TarEntry& entry) {
  switch (entry.type) {
    case EntryType::directory:
      return fs_.make_directory(parent, name);
    case EntryType::symlink:
      if (entry.link.empty() || entry.link.size() > kMaxPath) {
        return fail(EINVAL, "a symbolic link's target cannot have {} bytes", entry.link.size());
      }
      return fs_.make_symlink(parent, name, entry.link);
    case EntryType::char_device:
      return fs_.make_node(parent, name, S_IFCHR, entry.major, entry.minor);
    case EntryType::block_device:
      return fs_.make_node(parent, name, S_IFBLK, entry.major, entry.minor);
    case EntryType::fifo:
      return fs_.make_node(parent, name, S_IFIFO, 0, 0);
    case EntryType::hard_link:  // has been dealt with
    case EntryType::file:
      break;
  }
  OBD_TRY_ASSIGN(const InodeNumber made, fs_.make_node(parent, name, S_IFREG, 0, 0));
  for (const ByteRange& range : entry.data) done.bytes += range.length;
  OBD_TRY(fs_.set_content(made, entry.size, entry.data,
                          [&](std::span<std::byte> out) { return layer_.read(out); }));
  return made;
}

// Makes the entry's file under the name, after what is there has gone; or, of a directory over a
// directory, gives the one that is there.
Result<InodeNumber> Applier::place(const Way& way, const std::string& name, const TarEntry& entry) {
  const InodeNumber parent = way.back().inode;
  OBD_TRY_ASSIGN(const auto present, fs_.lookup(parent, name));
  if (present) {
    OBD_TRY_ASSIGN(const InodeInfo info, fs_.info(*present));
    if (entry.type == EntryType::directory && S_ISDIR(info.mode)) return *present;
    OBD_TRY(remove_tree(parent, name, *present));
  }
  return make(parent, name, entry);
}

Result<void> Applier::apply_hard_link(const Way& way, const std::string& name,
                                      const TarEntry& entry) {
  const auto target_missing = [&](const Error& error) {
    return fail(error.code, "its target '{}' cannot be linked to: {}", shown(entry.link),
                error.message);
  };
  OBD_TRY_ASSIGN(Names names, clean_path(entry.link));
  if (names.empty()) return fail(EINVAL, "it is a hard link to the root");
  const std::string target_name = std::move(names.back());
  names.pop_back();
  const InodeNumber parent = way.back().inode;
  const auto find_target = [&]() -> Result<InodeNumber> {
    OBD_TRY_ASSIGN(const Way target, walk(names, Missing::refuse, entry));
    OBD_TRY_ASSIGN(const auto found, fs_.lookup(target.back().inode, target_name));
    if (!found) return fail(ENOENT, "there is no '{}'", shown(target_name));
    return *found;
  };
  auto target = find_target();
  if (!target) return target_missing(target.error());
  OBD_TRY_ASSIGN(const InodeInfo info, fs_.info(*target));
  if (S_ISDIR(info.mode)) {
    return fail(EPERM, "its target '{}' is a directory", shown(entry.link));
  }
  OBD_TRY_ASSIGN(const auto present, fs_.lookup(parent, name));
  // A name that is given to its own file stays.
  if (!present || *present != *target) {
    if (present) {
      OBD_TRY(remove_tree(parent, name, *present));
      // The target may have gone with it.
      target = find_target();
      if (!target) return target_missing(target.error());
    }
    OBD_TRY(fs_.add_link(parent, name, *target));
  }
  keep(way, name);
  return set_attributes(*target, entry, false);
}

Result<std::vector<Xattr>> Applier::xattrs_of(const TarEntry& entry, bool directory, bool symlink,
                                              uint32_t& mode) {
  std::vector<Xattr> xattrs;
  std::string access;
  std::string fallback;
  for (const Xattr& xattr : entry.xattrs) {
    if (xattr.value.size() > kMaxXattrValue) {
      return fail(E2BIG, "the extended attribute '{}' has {} bytes, more than {}",
                  shown(xattr.name), xattr.value.size(), kMaxXattrValue);
    }
    if (xattr.name == kAccessAcl || xattr.name == kDefaultAcl) {
      auto acl = normal_acl(xattr.value);
      if (!acl) return fail(EINVAL, "{}: {}", xattr.name, acl.error().message);
      (xattr.name == kAccessAcl ? access : fallback) = std::move(*acl);
      continue;
    }
    const bool known = std::ranges::any_of(
        std::initializer_list<std::string_view>{"user.", "trusted.", "security."},
        [&](std::string_view space) {
          return xattr.name.starts_with(space) && xattr.name.size() > space.size() &&
                 xattr.name.size() - space.size() <= Ext4::kMaxName;
        });
    if (known) {
      xattrs.push_back(xattr);
    } else {
      warn(fmt::format(
          "the extended attribute '{}' is of a kind that ext4 does not have, and is not "
          "kept",
          shown(xattr.name)));
    }
  }
  if (access.empty() && !entry.access_acl.empty()) {
    OBD_TRY_ASSIGN(access, acl_from_text(entry.access_acl));
  }
  if (fallback.empty() && !entry.default_acl.empty()) {
    OBD_TRY_ASSIGN(fallback, acl_from_text(entry.default_acl));
  }
  if (symlink && !(access.empty() && fallback.empty())) {
    warn("an ACL of a symbolic link means nothing, and is not kept");
    return xattrs;
  }
  if (!access.empty()) {
    mode = (mode & ~0777U) | mode_of_acl(access);
    if (!is_minimal_acl(access)) xattrs.push_back({std::string(kAccessAcl), access});
  }
  if (!fallback.empty()) {
    if (directory) {
      xattrs.push_back({std::string(kDefaultAcl), fallback});
    } else {
      warn("a default ACL of what is no directory means nothing, and is not kept");
    }
  }
  return xattrs;
}

Result<void> Applier::set_attributes(InodeNumber inode, const TarEntry& entry, bool replace) {
  OBD_TRY_ASSIGN(const InodeInfo info, fs_.info(inode));
  Metadata metadata{.uid = entry.uid,
                    .gid = entry.gid,
                    .mode = S_ISLNK(info.mode) ? 0777 : entry.mode,
                    .atime = entry.atime.value_or(entry.mtime),
                    .mtime = entry.mtime,
                    .ctime = entry.ctime.value_or(entry.mtime)};
  OBD_TRY_ASSIGN(const auto xattrs,
                 xattrs_of(entry, S_ISDIR(info.mode), S_ISLNK(info.mode), metadata.mode));
  OBD_TRY_ASSIGN(const auto warning, fs_.set_metadata(inode, metadata));
  if (warning) warn(*warning);
  return fs_.set_xattrs(inode, xattrs, replace);
}

Result<void> Applier::apply_root(const TarEntry& entry) {
  if (entry.type != EntryType::directory) {
    return fail(EINVAL, "only a directory can be the root");
  }
  return set_attributes(Ext4::kRoot, entry, true);
}

Result<void> Applier::apply(const TarEntry& entry) {
  OBD_TRY_ASSIGN(Names names, clean_path(entry.path));
  if (names.empty()) {
    ++done.entries;
    return apply_root(entry);
  }
  if (names.front().starts_with(kAufs) && !(names.size() == 1 && names.front() == kOpaque)) {
    warn("is what aufs kept for itself, and is left out");
    return {};
  }
  const std::string name = std::move(names.back());
  names.pop_back();
  OBD_TRY_ASSIGN(const Way way, walk(std::move(names), Missing::make, entry));
  if (name.starts_with(kWhiteout)) return apply_whiteout(way, name);
  ++done.entries;
  if (entry.type == EntryType::hard_link) return apply_hard_link(way, name, entry);
  OBD_TRY_ASSIGN(const InodeNumber inode, place(way, name, entry));
  keep(way, name);
  return set_attributes(inode, entry, true);
}

}  // namespace

Result<AppliedLayer> apply_layer(Ext4& target, TarReader& layer) {
  Applier applier(target, layer);
  for (;;) {
    OBD_TRY_ASSIGN(const auto entry, layer.next());
    if (!entry) break;
    if (auto applied = applier.apply(*entry); !applied) {
      Error error = std::move(applied).error();
      if (!error.message.starts_with(layer.where())) {
        error.message = fmt::format("{}: {}", layer.where(), error.message);
      }
      return std::unexpected(std::move(error));
    }
  }
  applier.done.warnings.insert(applier.done.warnings.begin(), layer.warnings().begin(),
                               layer.warnings().end());
  return std::move(applier.done);
}

}  // namespace obd::oci
