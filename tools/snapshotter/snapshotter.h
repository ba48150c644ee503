// The snapshotter: what containerd asks of it, without the wire.
//
// A snapshot's content lies in a folder, as with containerd's overlayfs snapshotter, or on a disk
// of its own, a layered image (layers.h). Which, is decided when it is made:
//
//   committed parent   asked for      it is
//   none               overlayfs      a folder
//   none               dir, dev       a disk with a new file system: how images are built
//   a disk             overlayfs      a folder, overlaid on the parent's disk, mounted once for all
//   a disk             dir, dev       a disk that goes on from the parent's
//   folders            overlayfs      a folder, overlaid on those
//   folders            dir, dev       a disk that goes on from a copy of those, made once
//
// A view has nothing of its own: it shows its parent's folders or disk, read-only.
//
// Crashes: whatever is half done is found again in the database (store.h) and finished or undone by
// open(). Disks that are attached stay so, whether or not a snapshotter runs.
//
// Thread-safety: all functions may be called from any thread; calls for one key wait for each
// other. Errors, as containerd's own snapshotters tell them: ENOENT, EEXIST, EINVAL, and EBUSY for
// what the present state forbids; EOPNOTSUPP when the host or this version cannot; ENOSPC; all else
// is EIO.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/io/descriptor.h"
#include "tools/snapshotter/config.h"
#include "tools/snapshotter/disk.h"
#include "tools/snapshotter/key_locks.h"
#include "tools/snapshotter/layers.h"
#include "tools/snapshotter/store.h"

namespace obd::snapshotter {

struct Mount {
  std::string type;
  std::string source;
  std::vector<std::string> options;
};
using Mounts = std::vector<Mount>;

class Snapshotter {
 public:
  // Takes hold of the root, which no other snapshotter may use meanwhile, and puts in order what
  // the last one has left.
  static Result<std::unique_ptr<Snapshotter>> open(const Config& config);

  Result<Mounts> prepare(const std::string& key, const std::string& parent, const Labels& labels);
  Result<Mounts> view(const std::string& key, const std::string& parent, const Labels& labels);
  Result<Mounts> mounts(const std::string& key);
  Result<void> commit(const std::string& name, const std::string& key, const Labels& labels);
  Result<void> remove(const std::string& key);
  [[nodiscard]] Result<Snapshot> stat(const std::string& key) const;
  // `fields` as in a field mask; without any, everything that can be changed.
  Result<Snapshot> update(const std::string& key, const Labels& labels,
                          const std::vector<std::string>& fields);
  // Calls back with up to 100 snapshots at a time, in order of their keys, until that returns
  // false.
  [[nodiscard]] Result<void> list(
      const std::vector<std::string>& filters,
      const std::function<bool(const std::vector<Snapshot>&)>& visit) const;
  [[nodiscard]] Result<Usage> usage(const std::string& key) const;
  Result<void> cleanup();

  // For the metrics.
  [[nodiscard]] Result<std::map<Kind, uint64_t>> count() const { return store_.count(); }
  [[nodiscard]] uint64_t attached() const { return disks_.count(layers_.snapshots()); }

 private:
  Snapshotter(const Config& config, Layers layers, Store store, Descriptor lock);

  struct Plan;
  Result<Plan> plan(Kind kind, const std::string& key, const std::string& parent,
                    const Labels& labels) const;
  Result<Mounts> make(Kind kind, const std::string& key, const std::string& parent,
                      const Labels& labels);
  Result<Mounts> build(const Snapshot& snapshot, const Plan& plan);
  Result<void> build_disk(const Snapshot& snapshot, const Plan& plan);
  Result<void> work_on_new_disk(const Snapshot& snapshot);

  Result<Mounts> mounts_of(const Snapshot& snapshot);
  Result<Mounts> folder_mounts(const Snapshot& snapshot);
  Result<Mounts> disk_mounts(const Snapshot& snapshot);
  Result<void> share_disk(const Snapshot& parent);
  Result<std::vector<std::string>> shown_folders(const std::vector<Snapshot>& chain);
  Result<void> copy_to_disk(const std::vector<Snapshot>& chain);
  [[nodiscard]] Result<FileSystemHint> hint_for(const Snapshot& snapshot) const;
  [[nodiscard]] Result<DiskRequest> disk_request(const Snapshot& snapshot) const;

  Result<void> finish_commit(const Snapshot& snapshot);
  Result<bool> brought_blob(const Snapshot& snapshot, const std::vector<Snapshot>& ancestors);
  Result<void> seal_disk(const Snapshot& snapshot);
  Result<void> seal_mounted(int64_t id, const DiskRequest& request, const FileSystemHint& hint);
  bool is_sealed(const Snapshot& snapshot) const;

  Result<void> release_unless_used(const Snapshot& snapshot, Release content);
  Result<void> discard(int64_t id);
  void abandon(int64_t id);
  void abandon_again();
  void release_shared_disk(const std::vector<Snapshot>& ancestors);

  Result<void> recover();
  Result<void> sweep();
  void remove_leftovers();

  const Config& config_;
  const Layers layers_;
  Store store_;
  const Disks disks_;
  const Descriptor lock_;  // on ROOT/lock
  const bool overlay_has_index_;
  std::mutex abandoned_mutex_;
  std::vector<int64_t> abandoned_;  // rows that store_.abandon() could not take back yet
  KeyLocks keys_;
  KeyLocks images_;  // held while a disk is attached or released, by the snapshot's number
};

}  // namespace obd::snapshotter
