// The folders of the snapshots, laid out as those of overlaybd's snapshotter, and the images in
// them.
//
//   ROOT/metadata.sqlite                     what is known of them (store.h)
//   ROOT/lock                                held by the one snapshotter that uses ROOT
//   ROOT/snapshots/ID/fs                     of a folder: its content, the upper folder of an
//   overlay ROOT/snapshots/ID/work                   the overlay's work folder
//   ROOT/snapshots/ID/block/config.v1.json   of a disk: the image
//   ROOT/snapshots/ID/block/writable_data    its writable layer; after a commit the sealed one
//   ROOT/snapshots/ID/block/writable_index   its index log; after a commit there is none
//   ROOT/snapshots/ID/block/mountpoint       where the disk is mounted
//
// A layer that came as an overlaybd blob in an ordinary layer stays where it was unpacked:
// fs/overlaybd.commit.
//
// Thread-safety: all functions may be called from any thread; nobody else works on the same
// snapshot meanwhile. Errors: of the host, naming the file.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/image/config.h"
#include "core/layer/writable_layer.h"
#include "tools/snapshotter/disk.h"
#include "tools/snapshotter/store.h"

namespace obd::snapshotter {

// Of a layer that is an overlaybd blob; the name is overlaybd's.
inline constexpr const char* kBlobName = "overlaybd.commit";

class Layers {
 public:
  // Makes the folders; `root` is where they are from now on, without links.
  static Result<Layers> open(const std::string& root);

  [[nodiscard]] const std::string& root() const { return root_; }
  [[nodiscard]] std::string snapshots() const { return root_ + "/snapshots"; }
  [[nodiscard]] std::string folder(int64_t id) const;
  [[nodiscard]] std::string fs(int64_t id) const { return folder(id) + "/fs"; }
  [[nodiscard]] std::string work(int64_t id) const { return folder(id) + "/work"; }
  [[nodiscard]] std::string block(int64_t id) const { return folder(id) + "/block"; }
  [[nodiscard]] std::string image(int64_t id) const;
  [[nodiscard]] std::string mount_point(int64_t id) const { return block(id) + "/mountpoint"; }

  // The folders of a new snapshot, stable. `below` is the folder whose owner and mode the content's
  // takes over; empty: root's, 0755.
  Result<void> make_folders(int64_t id, const std::string& below) const;

  struct NewDisk {
    UpperKind kind = UpperKind::append;
    std::optional<int64_t> parent;  // whose disk it goes on from
    uint64_t size = 0;              // bytes; 0: the parent's
    std::string fstype;             // of a disk without a parent
    std::vector<std::string> mkfs_options;
  };
  // A disk of its own for a snapshot that has its folders; stable.
  Result<void> make_disk(int64_t id, const NewDisk& disk) const;

  // Whether there is a sealed image, of a disk or as a copy of folders.
  [[nodiscard]] bool has_sealed_image(int64_t id) const;
  // Removes an image that was not finished; it is not attached.
  Result<void> remove_image(int64_t id) const;

  // Size of the disk of an image, in bytes.
  [[nodiscard]] Result<uint64_t> disk_size(int64_t id) const;

  // The sealed layer that the snapshot itself has added; nullopt while it is written to.
  [[nodiscard]] Result<std::optional<std::string>> sealed_layer(int64_t id) const;

  // Makes the writable layer immutable, in place. The image is not attached.
  Result<void> seal(int64_t id) const;
  // The same by a copy, while a frozen disk is still attached as `device`.
  Result<void> seal_frozen(int64_t id, const std::string& device) const;
  // Removes a writable layer that the image has no use for any more.
  void remove_leftovers(int64_t id) const;
  [[nodiscard]] bool has_leftovers(int64_t id) const;

  // Whether all that has come into a folder is a blob. `below` is the folder with what was there
  // before; empty: nothing was.
  [[nodiscard]] Result<bool> is_blob_alone(const std::string& in, const std::string& below) const;
  // Copies the blob out of a folder where the disk is mounted, stable.
  Result<void> take_blob(int64_t id, const std::string& from) const;
  // The image is the parent's with the blob on top, whatever it was before.
  Result<void> adopt_blob(int64_t id, std::optional<int64_t> parent) const;

  // What it takes of the host; of a folder without the snapshots below.
  [[nodiscard]] Result<Usage> usage(int64_t id) const;

  Result<void> sync_content(int64_t id) const;
  // Removes a snapshot's folder, which nothing is mounted on.
  Result<void> remove(int64_t id) const;
  // The numbers of all folders.
  [[nodiscard]] Result<std::vector<int64_t>> list() const;

 private:
  explicit Layers(std::string root) : root_(std::move(root)) {}
  Result<std::vector<std::string>> lowers_over(std::optional<int64_t> parent) const;

  std::string root_;
};

}  // namespace obd::snapshotter
