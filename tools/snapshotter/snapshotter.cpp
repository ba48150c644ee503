// Two kinds of locks: keys_ keeps calls for one snapshot apart, images_ what is done to one disk.
// The second matters for the disk of a committed snapshot, which many share: whoever is about to
// use it has its row in the database before it asks for the lock, and whoever is about to take it
// down looks for such rows while it holds the lock. Two of images_ are taken from a snapshot down
// to its ancestor, never the other way.

#include "tools/snapshotter/snapshotter.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "core/io/file.h"
#include "tools/obd/program.h"
#include "tools/snapshotter/copy_folders.h"
#include "tools/snapshotter/filter.h"
#include "tools/snapshotter/labels.h"
#include "tools/snapshotter/log.h"

namespace obd::snapshotter {
namespace {

// As the database of containerd's snapshotters has it.
constexpr size_t kMaxKeySize = 32768;
constexpr uint64_t kFirstDiskSize = uint64_t{64} << 30;
constexpr size_t kPage = 100;
constexpr std::string_view kLabelsField = "labels";

Result<void> check_key(std::string_view what, const std::string& key) {
  if (key.empty()) return fail(EINVAL, "the {} is empty", what);
  if (key.size() > kMaxKeySize) {
    return fail(EINVAL, "the {} has {} bytes; {} are allowed", what, key.size(), kMaxKeySize);
  }
  return {};
}

// An error of the host: its errno must not be taken for what it means to containerd.
template <typename T>
Result<T> on_host(Result<T> result) {
  if (result) return result;
  Error error = std::move(result).error();
  switch (error.code) {
    case EBUSY:
    case ENOSPC:
    case EOPNOTSUPP:
      break;
    case EDQUOT:
      error.code = ENOSPC;
      break;
    default:
      error.code = EIO;
  }
  return std::unexpected(std::move(error));
}

Result<Descriptor> lock_root(const std::string& root) {
  const std::string path = root + "/lock";
  Descriptor fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(errno, "{}: cannot be opened", path);
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(fd.get(), F_OFD_SETLK, &lock) != 0) {
    if (errno != EAGAIN && errno != EACCES) return fail_errno(errno, "{}: cannot be locked", path);
    char holder[32] = {};
    const ssize_t got = ::pread(fd.get(), holder, sizeof holder - 1, 0);
    return fail(EBUSY, "{}: another snapshotter uses this root{}{}", root,
                got > 0 ? ": process " : "", got > 0 ? holder : "");
  }
  // For the sentence above only.
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(fd.get(), 0) != 0 ||
      ::pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    log_warning("{}: cannot be written: {}", path, std::strerror(errno));
  }
  return fd;
}

// What has no row is removed as the remains of a snapshot. With a database that never gave a number
// out, as when it was lost, or when the root is that of overlaybd's own snapshotter, that would be
// somebody's data.
Result<void> refuse_unknown_folders(const Layers& layers, const Store& store) {
  OBD_TRY_ASSIGN(const auto ids, layers.list());
  OBD_TRY_ASSIGN(const int64_t last, store.last_id());
  for (const int64_t id : ids) {
    if (id <= last) continue;
    return fail(EINVAL,
                "{}: the database {}/metadata.sqlite has never had snapshot {}: it was lost, or "
                "another snapshotter has made the folder. Bring the database back, choose another "
                "root, or move the folder away",
                layers.folder(id), layers.root(), id);
  }
  return {};
}

bool is_disk(const Snapshot& snapshot) { return snapshot.shape != Shape::folder; }

// A blob is unpacked into an empty folder: what is below it is of no interest to it.
bool takes_blob(const Snapshot& snapshot) {
  return snapshot.kind == Kind::active && snapshot.shape == Shape::folder &&
         !label_value(snapshot.labels, label::kBlobDigest).empty();
}

std::string lock_name(int64_t id) { return std::to_string(id); }

FieldLookup fields_of(const Snapshot& snapshot) {
  return [&snapshot](const std::vector<std::string>& path) -> std::optional<std::string> {
    const std::string& field = path.front();
    if (field == "kind") return std::string(to_text(snapshot.kind));
    if (field == "name") return snapshot.key;
    if (field == "parent") return snapshot.parent;
    if (field != kLabelsField) return std::nullopt;
    std::string name;
    for (size_t i = 1; i < path.size(); ++i) name += (i == 1 ? "" : ".") + path[i];
    const auto found = snapshot.labels.find(name);
    if (found == snapshot.labels.end()) return std::nullopt;
    return found->second;
  };
}

// `most` is the highest exit status that is no failure.
Result<void> run(const std::string& name, const std::vector<std::string>& arguments, int most = 0) {
  OBD_TRY_ASSIGN(std::string program, tool::find_program(name));
  std::vector<std::string> words = {std::move(program)};
  words.insert(words.end(), arguments.begin(), arguments.end());
  OBD_TRY_ASSIGN(const int status, tool::run_program(words));
  if (status > most) return fail(EIO, "{} failed with exit status {}", words.front(), status);
  return {};
}

}  // namespace

struct Snapshotter::Plan {
  Shape shape = Shape::folder;
  uint64_t size = 0;    // of the disk, in bytes; 0: the parent's
  FileSystemHint hint;  // of the snapshot's own labels
};

// ---- start ----

Snapshotter::Snapshotter(const Config& config, Layers layers, Store store, Descriptor lock)
    : config_(config),
      layers_(std::move(layers)),
      store_(std::move(store)),
      disks_(config_),
      lock_(std::move(lock)),
      overlay_has_index_(::access("/sys/module/overlay/parameters/index", F_OK) == 0) {}

Result<std::unique_ptr<Snapshotter>> Snapshotter::open(const Config& config) {
  OBD_TRY_ASSIGN(Layers layers, Layers::open(config.root));
  OBD_TRY_ASSIGN(Descriptor lock, lock_root(layers.root()));
  OBD_TRY_ASSIGN(Store store, Store::open(layers.root() + "/metadata.sqlite"));
  OBD_TRY(refuse_unknown_folders(layers, store));
  std::unique_ptr<Snapshotter> snapshotter(
      new Snapshotter(config, std::move(layers), std::move(store), std::move(lock)));
  OBD_TRY(snapshotter->recover());
  return snapshotter;
}

Result<void> Snapshotter::recover() {
  OBD_TRY_ASSIGN(const auto images, disks_.recover(layers_.snapshots()));
  for (const std::string& image : images) {
    OBD_TRY_ASSIGN(const bool is_there, posix_file_system().exists(image));
    if (is_there) continue;
    const auto released = disks_.release(image, Release::discard_content);
    if (!released) log_error("{}", released.error().message);
  }
  OBD_TRY_ASSIGN(const auto unfinished, store_.unfinished());
  for (const Snapshot& snapshot : unfinished) {
    log_info("snapshot {} was being made: it is undone", shown(snapshot.key));
    if (const auto done = discard(snapshot.id); !done) {
      log_error("{}", done.error().message);
      continue;
    }
    abandon(snapshot.id);
  }
  OBD_TRY_ASSIGN(const auto commits, store_.pending_commits());
  for (const PendingCommit& commit : commits) {
    const Snapshot& snapshot = commit.snapshot;
    // Its caller has not been told of a success, and containerd goes on with the active one: what
    // has been renamed without its knowing is garbage to it. Only what is sealed has no way back.
    if (!is_sealed(snapshot)) {
      log_info("snapshot {} was being committed: it stays active", shown(snapshot.key));
      // Frozen, perhaps, for a layer that was to be made by a copy.
      const auto thawed = disks_.thaw(layers_.mount_point(snapshot.id));
      if (!thawed) log_debug("{}", thawed.error().message);
      const auto noted = store_.commit_failed(snapshot.id);
      if (!noted) log_error("{}", noted.error().message);
      continue;
    }
    log_info("snapshot {} was being committed: it is finished as {}", shown(snapshot.key),
             shown(commit.name));
    if (const auto done = finish_commit(snapshot); !done) {
      log_error("snapshot {} stays active: {}", shown(snapshot.key), done.error().message);
    }
  }
  return sweep();
}

// ---- making ----

Result<Mounts> Snapshotter::prepare(const std::string& key, const std::string& parent,
                                    const Labels& labels) {
  return make(Kind::active, key, parent, labels);
}

Result<Mounts> Snapshotter::view(const std::string& key, const std::string& parent,
                                 const Labels& labels) {
  return make(Kind::view, key, parent, labels);
}

Result<Snapshotter::Plan> Snapshotter::plan(Kind kind, const std::string& key,
                                            const std::string& parent, const Labels& labels) const {
  Plan plan;
  OBD_TRY_ASSIGN(const auto asked, asked_mode(labels));
  OBD_TRY_ASSIGN(plan.hint, file_system_hint(labels));
  OBD_TRY_ASSIGN(plan.size, asked_size(labels));
  std::optional<Snapshot> below;
  if (!parent.empty()) {
    auto found = store_.find(parent);
    if (!found && found.error().code == ENOENT) {
      return fail(ENOENT, "parent snapshot {} does not exist", shown(parent));
    }
    OBD_TRY(found);
    below = std::move(*found);
  }
  const Mode mode = asked.value_or(config_.mode);
  if (mode == Mode::overlayfs) return plan;
  const Shape disk = mode == Mode::dir ? Shape::dir : Shape::dev;
  if (kind == Kind::view) {
    // Of folders, and mounted: what every mode shows the same way.
    if (below && is_disk(*below) && mode == Mode::dev) plan.shape = disk;
    return plan;
  }
  // Told that an overlaybd blob is coming: it becomes a layer where it is unpacked.
  if (!label_value(labels, label::kBlobDigest).empty()) return plan;
  // A layer that is unpacked over folders is one more of them.
  if (below && !is_disk(*below) && is_unpacking(key, labels) && !asked) return plan;
  plan.shape = disk;
  if (!below && plan.size == 0) plan.size = kFirstDiskSize;
  return plan;
}

Result<Mounts> Snapshotter::make(Kind kind, const std::string& key, const std::string& parent,
                                 const Labels& labels) {
  OBD_TRY(check_key("key", key));
  OBD_TRY(check_labels(labels));
  const auto lock = keys_.lock(key);
  abandon_again();
  if (store_.find(key)) return fail(EEXIST, "snapshot {} already exists", shown(key));
  OBD_TRY_ASSIGN(const Plan plan, this->plan(kind, key, parent, labels));
  OBD_TRY_ASSIGN(const uint64_t quota, asked_quota(labels));
  if (quota != 0 && kind == Kind::active && plan.shape == Shape::folder) {
    return fail(EOPNOTSUPP,
                "snapshot {} cannot have a quota, as label {} wants: only a disk can, which "
                "containers have in rwMode dir or dev",
                shown(key), label::kQuota);
  }
  OBD_TRY_ASSIGN(
      const Snapshot snapshot,
      store_.begin(
          {.key = key, .parent = parent, .kind = kind, .shape = plan.shape, .labels = labels}));
  auto mounts = on_host(build(snapshot, plan));
  if (mounts) {
    const auto finished = store_.finish(snapshot.id);
    if (finished) return mounts;
    mounts = std::unexpected(finished.error());
  }
  // A folder that cannot be removed now, is swept later: without a row it is nobody's.
  if (const auto undone = discard(snapshot.id); !undone) {
    log_error("snapshot {} could not be undone: {}", shown(key), undone.error().message);
  }
  abandon(snapshot.id);
  return mounts;
}

// Takes back the row of one that could not be made. Where there is no room for that, on a full
// disk, a later call does: its key must not be taken, nor its parent have a child, until the next
// start.
void Snapshotter::abandon(int64_t id) {
  if (const auto done = store_.abandon(id); !done) {
    log_error("{}", done.error().message);
    const std::lock_guard guard(abandoned_mutex_);
    abandoned_.push_back(id);
  }
}

void Snapshotter::abandon_again() {
  std::vector<int64_t> ids;
  {
    const std::lock_guard guard(abandoned_mutex_);
    ids.swap(abandoned_);
  }
  for (const int64_t id : ids) abandon(id);
}

Result<Mounts> Snapshotter::build(const Snapshot& snapshot, const Plan& plan) {
  // What an overlay shows as its top folder is the upper one.
  std::string below;
  if (snapshot.kind == Kind::active && snapshot.parent_id != 0 && !is_disk(snapshot) &&
      !takes_blob(snapshot)) {
    OBD_TRY_ASSIGN(const auto ancestors, store_.ancestors(snapshot));
    OBD_TRY_ASSIGN(const auto folders, shown_folders(ancestors));
    below = folders.front();
  }
  OBD_TRY(layers_.make_folders(snapshot.id, below));
  if (snapshot.kind == Kind::active && is_disk(snapshot)) OBD_TRY(build_disk(snapshot, plan));
  return mounts_of(snapshot);
}

Result<void> Snapshotter::build_disk(const Snapshot& snapshot, const Plan& plan) {
  const bool is_first = snapshot.parent_id == 0;
  Layers::NewDisk disk{.kind = config_.writable_layer,
                       .parent = std::nullopt,
                       .size = plan.size,
                       .fstype = plan.hint.type.empty() ? config_.default_fs_type : plan.hint.type,
                       .mkfs_options = plan.hint.mkfs_options};
  bool grows = false;
  if (!is_first) {
    OBD_TRY_ASSIGN(const auto ancestors, store_.ancestors(snapshot));
    if (!is_disk(ancestors.front())) OBD_TRY(copy_to_disk(ancestors));
    disk.parent = snapshot.parent_id;
    if (plan.size != 0) {
      OBD_TRY_ASSIGN(const uint64_t size, layers_.disk_size(snapshot.parent_id));
      grows = plan.size > size;
      if (!grows) disk.size = 0;
    }
  }
  OBD_TRY(layers_.make_disk(snapshot.id, disk));
  return is_first || grows ? work_on_new_disk(snapshot) : Result<void>();
}

// An empty root folder for a first one; for others a file system as large as the disk.
Result<void> Snapshotter::work_on_new_disk(const Snapshot& snapshot) {
  const std::string mount_point = layers_.mount_point(snapshot.id);
  OBD_TRY_ASSIGN(const FileSystemHint hint, hint_for(snapshot));
  OBD_TRY_ASSIGN(const DiskRequest request, disk_request(snapshot));
  const bool is_first = snapshot.parent_id == 0;
  std::string fstype;
  if (!is_first) {
    OBD_TRY_ASSIGN(const DeviceMount device, disks_.attach(request, hint));
    fstype = device.fstype;
    if (fstype == "ext4") {
      OBD_TRY(run("e2fsck", {"-f", "-p", device.device}, 1));
      OBD_TRY(run("resize2fs", {device.device}));
    } else if (fstype != "xfs") {
      return fail(EOPNOTSUPP, "a disk with {} cannot be made larger than its parent's", fstype);
    }
  }
  OBD_TRY(disks_.mount(request, mount_point, hint));
  if (fstype == "xfs") OBD_TRY(run("xfs_growfs", {mount_point}));
  // An image's root folder has none; e2fsck makes it when it needs one.
  ::rmdir((mount_point + "/lost+found").c_str());
  if (snapshot.shape == Shape::dir) return {};
  return disks_.unmount(request.image, mount_point);
}

// ---- mounts ----

Result<Mounts> Snapshotter::mounts(const std::string& key) {
  OBD_TRY(check_key("key", key));
  const auto lock = keys_.lock(key);
  OBD_TRY_ASSIGN(const Snapshot snapshot, store_.find(key));
  if (snapshot.kind == Kind::committed) {
    return fail(EBUSY, "snapshot {} is committed: it has no mounts", shown(key));
  }
  return on_host(mounts_of(snapshot));
}

Result<Mounts> Snapshotter::mounts_of(const Snapshot& snapshot) {
  return is_disk(snapshot) ? disk_mounts(snapshot) : folder_mounts(snapshot);
}

Result<FileSystemHint> Snapshotter::hint_for(const Snapshot& snapshot) const {
  OBD_TRY_ASSIGN(FileSystemHint own, file_system_hint(snapshot.labels));
  if (!own.type.empty()) return own;
  OBD_TRY_ASSIGN(const auto ancestors, store_.ancestors(snapshot));
  for (const Snapshot& ancestor : ancestors) {
    OBD_TRY_ASSIGN(FileSystemHint hint, file_system_hint(ancestor.labels));
    if (!hint.type.empty()) return hint;
  }
  return own;
}

Result<DiskRequest> Snapshotter::disk_request(const Snapshot& snapshot) const {
  DiskRequest request{
      .image = layers_.image(snapshot.id), .read_only = snapshot.kind != Kind::active, .quota = 0};
  OBD_TRY_ASSIGN(request.quota, asked_quota(snapshot.labels));
  // It is for containers, not for the images that they are made of.
  if (request.quota == 0 && !is_unpacking(snapshot.key, snapshot.labels)) {
    request.quota = config_.rootfs_quota;
  }
  return request;
}

Result<Mounts> Snapshotter::disk_mounts(const Snapshot& snapshot) {
  OBD_TRY_ASSIGN(const FileSystemHint hint, hint_for(snapshot));
  // A view shows its parent's disk.
  Snapshot shown_one = snapshot;
  if (snapshot.kind == Kind::view) {
    OBD_TRY_ASSIGN(auto ancestors, store_.ancestors(snapshot));
    shown_one = std::move(ancestors.front());
  }
  OBD_TRY_ASSIGN(const DiskRequest request, disk_request(shown_one));
  const auto lock = images_.lock(lock_name(shown_one.id));
  if (snapshot.shape == Shape::dev) {
    OBD_TRY_ASSIGN(DeviceMount device, disks_.attach(request, hint));
    return Mounts{{.type = std::move(device.fstype),
                   .source = std::move(device.device),
                   .options = std::move(device.options)}};
  }
  const std::string mount_point = layers_.mount_point(snapshot.id);
  OBD_TRY(disks_.mount(request, mount_point, hint));
  return Mounts{{.type = "bind", .source = mount_point, .options = {"rw", "rbind"}}};
}

// The disk of a committed snapshot, mounted once for all that lie above it.
Result<void> Snapshotter::share_disk(const Snapshot& parent) {
  OBD_TRY_ASSIGN(const FileSystemHint hint, hint_for(parent));
  const auto lock = images_.lock(lock_name(parent.id));
  return disks_.mount({.image = layers_.image(parent.id), .read_only = true, .quota = 0},
                      layers_.mount_point(parent.id), hint);
}

// Of a chain of committed snapshots, the topmost first: their folders, down to a disk.
Result<std::vector<std::string>> Snapshotter::shown_folders(const std::vector<Snapshot>& chain) {
  std::vector<std::string> folders;
  for (const Snapshot& snapshot : chain) {
    if (is_disk(snapshot)) {
      OBD_TRY(share_disk(snapshot));
      folders.push_back(layers_.mount_point(snapshot.id));
      break;
    }
    folders.push_back(layers_.fs(snapshot.id));
  }
  return folders;
}

// Gives the topmost of the chain, a folder, an image that shows what its overlay mount does, for
// disks to go on from. It goes away with the snapshot.
Result<void> Snapshotter::copy_to_disk(const std::vector<Snapshot>& chain) {
  const Snapshot& top = chain.front();
  const auto lock = images_.lock(lock_name(top.id));
  if (layers_.has_sealed_image(top.id)) return {};
  const std::string image = layers_.image(top.id);
  OBD_TRY_ASSIGN(const bool is_begun, posix_file_system().exists(layers_.block(top.id)));
  if (is_begun) {
    OBD_TRY(disks_.release(image, Release::discard_content));
    OBD_TRY(layers_.remove_image(top.id));
  }
  log_info("snapshot {}, an ordinary layer, is copied to a disk, with those below it",
           shown(top.key));
  OBD_TRY_ASSIGN(const auto folders, shown_folders(chain));
  OBD_TRY_ASSIGN(const FileSystemHint hint, hint_for(top));
  OBD_TRY(
      layers_.make_disk(top.id, {.kind = UpperKind::append,
                                 .parent = std::nullopt,
                                 .size = kFirstDiskSize,
                                 .fstype = hint.type.empty() ? config_.default_fs_type : hint.type,
                                 .mkfs_options = hint.mkfs_options}));
  const DiskRequest request{.image = image, .read_only = false, .quota = 0};
  OBD_TRY(disks_.mount(request, layers_.mount_point(top.id), hint));
  ::rmdir((layers_.mount_point(top.id) + "/lost+found").c_str());
  const auto copied =
      copy_folders(folders, layers_.folder(top.id) + "/merged", layers_.mount_point(top.id));
  if (copied) return seal_mounted(top.id, request, hint);
  OBD_TRY(disks_.release(image, Release::discard_content));
  return copied;
}

Result<Mounts> Snapshotter::folder_mounts(const Snapshot& snapshot) {
  const bool is_view = snapshot.kind == Kind::view;
  const std::string own = layers_.fs(snapshot.id);
  if (snapshot.parent_id == 0 || takes_blob(snapshot)) {
    return Mounts{{.type = "bind", .source = own, .options = {is_view ? "ro" : "rw", "rbind"}}};
  }
  OBD_TRY_ASSIGN(const auto ancestors, store_.ancestors(snapshot));
  OBD_TRY_ASSIGN(const std::vector<std::string> lowers, shown_folders(ancestors));
  if (is_view && lowers.size() == 1) {
    return Mounts{{.type = "bind", .source = lowers.front(), .options = {"ro", "rbind"}}};
  }
  std::string lower_option = "lowerdir=";
  for (const std::string& lower : lowers) {
    lower_option += (&lower == &lowers.front() ? "" : ":") + lower;
  }
  Mount mount{.type = "overlay", .source = "overlay", .options = {}};
  // Folders that many overlays share are not to be marked as one's own.
  if (overlay_has_index_) mount.options.emplace_back("index=off");
  if (!is_view) {
    mount.options.push_back("workdir=" + layers_.work(snapshot.id));
    mount.options.push_back("upperdir=" + own);
  }
  mount.options.push_back(std::move(lower_option));
  return Mounts{std::move(mount)};
}

// ---- committing ----

Result<void> Snapshotter::commit(const std::string& name, const std::string& key,
                                 const Labels& labels) {
  OBD_TRY(check_key("name", name));
  OBD_TRY(check_key("key", key));
  OBD_TRY(check_labels(labels));
  OBD_TRY(file_system_hint(labels));
  const auto locks = keys_.lock_two(name, key);
  OBD_TRY_ASSIGN(const Snapshot snapshot, store_.commit_begins(key, name, labels));
  auto done = on_host(finish_commit(snapshot));
  if (done) return {};
  // What is sealed cannot be undone: the next call, or the next start, goes on from there.
  if (!is_sealed(snapshot)) {
    const auto noted = store_.commit_failed(snapshot.id);
    if (!noted) log_error("{}", noted.error().message);
  }
  return done;
}

bool Snapshotter::is_sealed(const Snapshot& snapshot) const {
  if (!is_disk(snapshot)) return false;
  const auto sealed = layers_.sealed_layer(snapshot.id);
  return sealed && *sealed;
}

// An overlaybd image, unpacked as an ordinary one: its layers are blobs, each the only file that
// its unpacking brought. A file of that name that a container has made is a file as any other: were
// it taken for a layer, the rest of the container would be lost.
Result<bool> Snapshotter::brought_blob(const Snapshot& snapshot,
                                       const std::vector<Snapshot>& ancestors) {
  if (!is_unpacking(snapshot.key, snapshot.labels) && !takes_blob(snapshot)) return false;
  if (!ancestors.empty() && !is_disk(ancestors.front())) return false;
  if (!is_disk(snapshot)) return layers_.is_blob_alone(layers_.fs(snapshot.id), "");
  const std::string mount_point = layers_.mount_point(snapshot.id);
  OBD_TRY_ASSIGN(const bool is_there,
                 posix_file_system().exists(fmt::format("{}/{}", mount_point, kBlobName)));
  if (!is_there) return false;
  std::string below;
  if (!ancestors.empty()) {
    OBD_TRY(share_disk(ancestors.front()));
    below = layers_.mount_point(ancestors.front().id);
  }
  return layers_.is_blob_alone(mount_point, below);
}

// Every step may have been done before.
Result<void> Snapshotter::finish_commit(const Snapshot& snapshot) {
  Shape shape = snapshot.shape;
  if (is_disk(snapshot)) {
    OBD_TRY(seal_disk(snapshot));
  } else {
    OBD_TRY_ASSIGN(const auto ancestors, store_.ancestors(snapshot));
    // A blob, too: whoever has unpacked it has left it in the page cache.
    OBD_TRY(layers_.sync_content(snapshot.id));
    OBD_TRY_ASSIGN(const bool is_blob, brought_blob(snapshot, ancestors));
    if (is_blob) {
      OBD_TRY(layers_.adopt_blob(
          snapshot.id, ancestors.empty() ? std::nullopt : std::optional(ancestors.front().id)));
      shape = Shape::dir;
    }
  }
  Labels extra;
  if (shape != Shape::folder) {
    OBD_TRY_ASSIGN(const auto sealed, layers_.sealed_layer(snapshot.id));
    if (sealed) extra.emplace(label::kCommitPath, *sealed);
  }
  OBD_TRY_ASSIGN(const Usage usage, layers_.usage(snapshot.id));
  OBD_TRY(store_.commit(snapshot.id, shape, usage, extra));
  // For unpacking this layer the one below was mounted, and for nothing else so far.
  if (shape != Shape::folder && is_unpacking(snapshot.key, snapshot.labels)) {
    OBD_TRY_ASSIGN(const auto ancestors, store_.ancestors(snapshot));
    release_shared_disk(ancestors);
  }
  return {};
}

// The file system is mounted before its last unmounting, so that its journal is empty: it could not
// be mounted read-only otherwise.
Result<void> Snapshotter::seal_disk(const Snapshot& snapshot) {
  if (is_sealed(snapshot)) return {};
  const std::string mount_point = layers_.mount_point(snapshot.id);
  OBD_TRY_ASSIGN(const FileSystemHint hint, hint_for(snapshot));
  OBD_TRY_ASSIGN(const DiskRequest request, disk_request(snapshot));
  OBD_TRY_ASSIGN(const auto ancestors, store_.ancestors(snapshot));
  OBD_TRY(disks_.refuse_raw_use(request.image));
  OBD_TRY(disks_.mount(request, mount_point, hint));
  OBD_TRY_ASSIGN(const bool has_blob, brought_blob(snapshot, ancestors));
  if (has_blob) OBD_TRY(layers_.take_blob(snapshot.id, mount_point));
  if (!has_blob) return seal_mounted(snapshot.id, request, hint);
  OBD_TRY(disks_.release(request.image, Release::keep_content));
  return layers_.adopt_blob(
      snapshot.id, snapshot.parent_id == 0 ? std::nullopt : std::optional(snapshot.parent_id));
}

// Of a disk that is mounted on its mount point.
Result<void> Snapshotter::seal_mounted(int64_t id, const DiskRequest& request,
                                       const FileSystemHint& hint) {
  const std::string mount_point = layers_.mount_point(id);
  const auto released = disks_.release(request.image, Release::keep_content);
  if (released) return layers_.seal(id);
  if (released.error().code != EBUSY) return released;
  // Somebody has it mounted still. If nobody writes to it, it can stay so.
  OBD_TRY(disks_.mount(request, mount_point, hint));
  if (const auto frozen = disks_.freeze(mount_point); !frozen) {
    return fail(EBUSY, "{}; and {}", released.error().message, frozen.error().message);
  }
  log_info("{} is sealed by a copy: {}", request.image, released.error().message);
  const auto device = disks_.attach(request, hint);
  const auto sealed = device ? layers_.seal_frozen(id, device->device)
                             : Result<void>(std::unexpected(device.error()));
  if (sealed) return {};
  if (const auto thawed = disks_.thaw(mount_point); !thawed) {
    log_error("{}", thawed.error().message);
  }
  return sealed;
}

// ---- removing ----

Result<void> Snapshotter::remove(const std::string& key) {
  OBD_TRY(check_key("key", key));
  const auto lock = keys_.lock(key);
  abandon_again();
  OBD_TRY_ASSIGN(const Snapshot snapshot, store_.check_removable(key));
  OBD_TRY_ASSIGN(const auto ancestors, store_.ancestors(snapshot));
  if (!config_.async_remove) {
    auto released = release_unless_used(snapshot, Release::discard_content);
    if (!released) {
      // Containerd's garbage collection goes on with others after EBUSY only, and comes again.
      released.error().code = EBUSY;
      return released;
    }
  }
  OBD_TRY(store_.remove(key));
  if (snapshot.kind != Kind::committed && config_.auto_remove_dev) release_shared_disk(ancestors);
  if (config_.async_remove) return {};
  // Without a row it is gone for containerd; what is left is swept later.
  if (const auto removed = discard(snapshot.id); !removed) {
    log_error("{}", removed.error().message);
  }
  return {};
}

// The snapshot's own disk, unless somebody has begun to build on it.
Result<void> Snapshotter::release_unless_used(const Snapshot& snapshot, Release content) {
  if (snapshot.kind == Kind::view) return {};
  OBD_TRY_ASSIGN(const bool has_disk, posix_file_system().exists(layers_.block(snapshot.id)));
  if (!has_disk) return {};
  const auto lock = images_.lock(lock_name(snapshot.id));
  OBD_TRY(store_.check_removable(snapshot.key));
  return disks_.release(layers_.image(snapshot.id), content);
}

// The image that a container used, when no other does.
void Snapshotter::release_shared_disk(const std::vector<Snapshot>& ancestors) {
  const auto shared = std::ranges::find_if(ancestors, is_disk);
  if (shared == ancestors.end()) return;
  const auto lock = images_.lock(lock_name(shared->id));
  const auto used = store_.has_users(shared->id);
  if (!used || *used) return;
  const auto released = disks_.release(layers_.image(shared->id), Release::keep_content);
  if (!released) log_warning("{}", released.error().message);
}

// Whatever a snapshot without a row has left.
Result<void> Snapshotter::discard(int64_t id) {
  const auto lock = images_.lock(lock_name(id));
  OBD_TRY_ASSIGN(const bool has_disk, posix_file_system().exists(layers_.block(id)));
  if (has_disk) OBD_TRY(disks_.release(layers_.image(id), Release::discard_content));
  return layers_.remove(id);
}

Result<void> Snapshotter::sweep() {
  // First the folders, then the rows: a new snapshot has its row before its folder.
  OBD_TRY_ASSIGN(const auto ids, layers_.list());
  for (const int64_t id : ids) {
    OBD_TRY_ASSIGN(const auto key, store_.find_id(id));
    if (key) continue;
    if (const auto done = discard(id); !done) log_warning("{}", done.error().message);
  }
  return {};
}

// Of snapshots that were committed while they were in use.
void Snapshotter::remove_leftovers() {
  std::string after;
  while (true) {
    const auto page = store_.list(after, kPage);
    if (!page || page->empty()) return;
    for (const Snapshot& snapshot : *page) {
      if (snapshot.kind != Kind::committed || !layers_.has_leftovers(snapshot.id)) continue;
      const auto lock = images_.lock(lock_name(snapshot.id));
      const auto used = store_.has_users(snapshot.id);
      if (!used || *used) continue;
      if (disks_.release(layers_.image(snapshot.id), Release::keep_content)) {
        layers_.remove_leftovers(snapshot.id);
      }
    }
    after = page->back().key;
  }
}

Result<void> Snapshotter::cleanup() {
  OBD_TRY(on_host(sweep()));
  remove_leftovers();
  return {};
}

// ---- looking and labels ----

Result<Snapshot> Snapshotter::stat(const std::string& key) const {
  OBD_TRY(check_key("key", key));
  return store_.find(key);
}

Result<Snapshot> Snapshotter::update(const std::string& key, const Labels& labels,
                                     const std::vector<std::string>& fields) {
  OBD_TRY(check_key("name", key));
  OBD_TRY(check_labels(labels));
  OBD_TRY(file_system_hint(labels));
  const auto lock = keys_.lock(key);
  std::optional<std::vector<std::string>> names;
  bool all = fields.empty();
  for (const std::string& field : fields) {
    if (field == kLabelsField) {
      all = true;
    } else if (field.starts_with("labels.") && field.size() > kLabelsField.size() + 1) {
      if (!names) names.emplace();
      names->push_back(field.substr(kLabelsField.size() + 1));
    } else {
      return fail(EINVAL, "field {} of snapshot {} cannot be changed", shown(field), shown(key));
    }
  }
  if (all) names.reset();
  return store_.update_labels(key, labels, names);
}

Result<void> Snapshotter::list(
    const std::vector<std::string>& filters,
    const std::function<bool(const std::vector<Snapshot>&)>& visit) const {
  OBD_TRY_ASSIGN(const Filter filter, Filter::parse(filters));
  std::string after;
  while (true) {
    OBD_TRY_ASSIGN(auto page, store_.list(after, kPage));
    if (page.empty()) return {};
    after = page.back().key;
    std::erase_if(page,
                  [&](const Snapshot& snapshot) { return !filter.matches(fields_of(snapshot)); });
    if (!page.empty() && !visit(page)) return {};
  }
}

Result<Usage> Snapshotter::usage(const std::string& key) const {
  OBD_TRY(check_key("key", key));
  OBD_TRY_ASSIGN(const Snapshot snapshot, store_.find(key));
  if (snapshot.kind == Kind::committed) return snapshot.usage;
  return on_host(layers_.usage(snapshot.id));
}

}  // namespace obd::snapshotter
