// An image: a virtual disk made of a stack of sealed layers and at most one writable layer.
//
// Units: bytes, any offset and length within the disk. Ownership: owns its layers and files.
// Thread-safety: read, write, zero, trim, flush, extents, prefetch and stats may be called from
// many threads at once. Errors: an errno that an NBD client understands (EIO, EROFS, ENOSPC,
// EINVAL, EOPNOTSUPP) and a sentence.
//
// Durability (docs/design.md): a completed write, zero or trim survives the death of the
// process; a flushed one the death of the host.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/progress.h"
#include "core/base/rwlock.h"
#include "core/image/config.h"
#include "core/image/range_lock.h"
#include "core/image/space_reclaimer.h"
#include "core/index/extent.h"
#include "core/index/frozen_index.h"
#include "core/io/file.h"
#include "core/layer/layer_store.h"
#include "core/layer/sealed_layer.h"
#include "core/layer/writable_layer.h"
#include "core/zfile/block_cache.h"

namespace obd {

// What a write of nothing but zeros does, as in qemu: what it says; zero() without may_trim; zero()
// with it. Only whole requests are looked at.
enum class ZeroDetection { off, on, unmap };

struct OpenOptions {
  Access access = Access::read_write;  // read_write without an upper opens read-only
  // Open although another process has the upper open. Only for looking: what is read may be torn
  // between two moments. Needs Access::read_only.
  bool force_share = false;
  // Where the lowers are shared, and the cache of their decompressed blocks. A process that opens
  // several images gives all of them the same one. Null: the image makes one for itself, whose
  // cache has BlockCache::kDefaultCapacity.
  std::shared_ptr<LayerStore> layers = nullptr;
  ZeroDetection detect_zeroes = ZeroDetection::off;
  // Giving dead space back while requests are served: Image::start_reclaim().
  ReclaimOptions reclaim = {};
  // What the upper's two files may take of the host, in bytes; 0: no limit. Changes that need more
  // are refused with ENOSPC.
  uint64_t max_upper_size = 0;
  // The disk is as large as the format allows, whatever the layers say: for looking at all that the
  // lowers hold, as a stack with something else on top of them may show it. Only without an upper.
  bool beyond_the_end = false;
  // Open although an update has begun and not ended, in order to end it: core/image/update.h.
  bool finish_update = false;
};

struct WriteOptions {
  bool fua = false;  // stable before the call returns
};

struct ZeroOptions {
  bool fua = false;
  bool may_trim = true;    // false: the range keeps its space reserved where the layer can do that
  bool fast_only = false;  // EOPNOTSUPP rather than writing zeros block by block
};

// A run of the disk as Image::extents reports it.
struct ImageExtent {
  uint64_t offset = 0;  // bytes
  uint64_t length = 0;  // bytes
  ExtentKind kind = ExtentKind::hole;
  // Of data and zero extents: index into Image::layers().
  size_t layer = 0;
  // Of data: the byte in the layer as its blob gives it. In a plain file that is the file's byte.
  uint64_t physical = 0;
};

// One layer as Image::layers lists it, bottom first, the upper last.
struct LayerInfo {
  std::string path;        // the data file
  std::string index_path;  // the upper's index log; else empty
  std::string kind;        // "sealed", "append", "sparse"
  Uuid uuid;
  Uuid parent_uuid;
  std::string user_tag;
  std::optional<Container> container;  // how a sealed layer is stored
  uint64_t virtual_size = 0;           // bytes
  uint64_t extents = 0;                // index entries
  uint64_t data_bytes = 0;             // live: named by the index
  uint64_t zero_bytes = 0;             // in zero extents
  uint64_t dead_bytes = 0;             // in the data area, named by nothing
  uint64_t file_bytes = 0;             // size of the data file
  uint64_t allocated_bytes = 0;        // that the host has set aside for the data file
  uint64_t log_records = 0;            // of the upper's index log; else 0
  uint64_t log_dead_records = 0;
  std::vector<std::string> warnings;
};

Result<LayerInfo> describe(const SealedLayer& layer);
Result<LayerInfo> describe(const WritableLayer& layer);

// The virtual size of a stack of lowers, in bytes: that of the topmost one that has any.
uint64_t size_of_lowers(const std::vector<LayerInfo>& lowers);

struct ImageStats {
  uint64_t reads = 0, read_bytes = 0;
  uint64_t writes = 0, write_bytes = 0;
  uint64_t zeroes = 0, zero_bytes = 0;  // zero and trim
  uint64_t flushes = 0, syncs = 0;      // requests, and the fdatasync calls they took
  uint64_t failed_punches = 0;          // space that the host would not take back
  // Space that was given back while requests were served, and live data that was moved for it, in
  // bytes; replacements of the index log.
  uint64_t punched_bytes = 0, moved_bytes = 0, log_checkpoints = 0;
};

class Image {
 public:
  // Opens the image that a config file describes. With Access::read_write it also writes the
  // config's resultFile; with read_only it changes no file at all.
  static Result<std::unique_ptr<Image>> open(FileSystem& fs, const std::string& config_path,
                                             const OpenOptions& options);
  // The same without a config file on disk and without a resultFile.
  static Result<std::unique_ptr<Image>> open(FileSystem& fs, const ImageConfig& config,
                                             const OpenOptions& options);
  ~Image();

  [[nodiscard]] const ImageConfig& config() const { return config_; }
  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] bool writable() const { return writable_; }
  // The unit in which the upper keeps data and zeros apart without waste, in bytes; 4 KiB or more.
  [[nodiscard]] uint64_t block_size() const {
    return upper_ ? std::max(kBlockSize, upper_->granularity()) : kBlockSize;
  }

  Result<void> read(std::span<std::byte> out, uint64_t offset) const;
  Result<void> write(std::span<const std::byte> data, uint64_t offset, WriteOptions options = {});
  // The range reads as zeros afterwards.
  Result<void> zero(uint64_t offset, uint64_t length, ZeroOptions options = {});
  // As zero, giving the space back.
  Result<void> trim(uint64_t offset, uint64_t length, WriteOptions options = {});
  Result<void> flush();

  // Calls back for each run of the range, in order, without a gap, neighbours of one kind and layer
  // and with continuing bytes joined, until the callback returns false.
  Result<void> extents(uint64_t offset, uint64_t length,
                       const std::function<bool(const ImageExtent&)>& visit) const;

  // Hints that the range will be read soon.
  Result<void> prefetch(uint64_t offset, uint64_t length) const;

  [[nodiscard]] Result<std::vector<LayerInfo>> layers() const;
  [[nodiscard]] ImageStats stats() const;

  // As WritableLayer::refuse_other_names(); the image has an upper.
  Result<void> refuse_other_names(std::string_view what) const;

  // Gives dead space back in the background from now on, if OpenOptions::reclaim says so. Makes a
  // thread, so it comes after any fork.
  void start_reclaim();
  // Gives back now what can be given back. OpenOptions::reclaim says so.
  Result<void> reclaim_now();
  // Makes one step of what the background does while changes go on: so that tests need no thread.
  Result<void> reclaim_step();

  // As WritableLayer::compact(). Nobody else reads or writes meanwhile. The image is writable.
  Result<WritableLayer::Compaction> compact_upper(const ReportProgress& report);

  // As WritableLayer::resize(). Nobody else reads or writes meanwhile. The image is writable.
  Result<void> resize_upper(uint64_t size, std::span<const SectorRange> hidden);

  // As WritableLayer's, for core/image/update.h. Nobody else reads or writes meanwhile. The image
  // is writable.
  Result<void> begin_update(uint64_t hash);
  Result<void> end_update(uint64_t hash);
  [[nodiscard]] std::optional<uint64_t> pending_update() const;
  // What the upper's log cannot tell any more although it once did; empty when it is whole.
  [[nodiscard]] const std::vector<std::string>& losses() const;

  // Names the calling process as the holder of the layers' locks, after a fork.
  Result<void> refresh_lock_holder() const;

  // Flushes and leaves a log that opens without doubt. Nothing may be called afterwards; the files
  // and the lock are held until the image is destroyed. An image destroyed without close() is as if
  // its process had been killed.
  Result<void> close();

 private:
  struct Counters;

  Image(FileSystem& fs, ImageConfig config);

  Result<void> open_layers(const OpenOptions& options);
  Result<void> refuse_shared_files() const;
  Result<void> check_range(uint64_t offset, uint64_t length, int past_end) const;
  Result<void> check_writable() const;
  Result<void> read_layer(LayerNumber layer, std::span<std::byte> out, uint64_t offset) const;

  template <typename Change>
  Result<void> make_change(bool exclusive, Change&& change);

  template <typename Visit>
  Result<void> for_each_extent(Sectors from, Sectors to, Visit&& visit) const
      OBD_REQUIRES_SHARED(layout_mutex_);
  Result<void> read_locked(std::span<std::byte> out, uint64_t offset) const
      OBD_REQUIRES_SHARED(layout_mutex_);
  Result<void> prefetch_locked(uint64_t offset, uint64_t length) const
      OBD_REQUIRES_SHARED(layout_mutex_);
  // Whether its first byte can be read without waiting for a device. Of data.
  [[nodiscard]] bool is_near(const Extent& extent) const;
  Result<void> write_append(std::span<const std::byte> data, uint64_t offset)
      OBD_REQUIRES_SHARED(layout_mutex_);
  // Exclusively, which write() and zero() see to and the analysis cannot.
  Result<void> write_append_unaligned(std::span<const std::byte> data, uint64_t offset)
      OBD_REQUIRES_SHARED(layout_mutex_);
  Result<void> write_sparse(std::span<const std::byte> data, uint64_t offset)
      OBD_REQUIRES_SHARED(layout_mutex_);
  Result<void> write_first_touch(std::span<const std::byte> data, uint64_t offset, uint64_t begin,
                                 uint64_t end) OBD_REQUIRES_SHARED(layout_mutex_);
  Result<void> write_piece(std::span<const std::byte> data, uint64_t offset)
      OBD_REQUIRES_SHARED(layout_mutex_);
  Result<void> write_zeros(uint64_t offset, uint64_t length) OBD_REQUIRES_SHARED(layout_mutex_);
  Result<void> zero_edge(uint64_t offset, uint64_t end) OBD_REQUIRES_SHARED(layout_mutex_);
  Result<void> zero_whole(uint64_t begin, uint64_t end) OBD_REQUIRES_SHARED(layout_mutex_);
  Result<void> zero_range(uint64_t offset, uint64_t length, const ZeroOptions& options)
      OBD_REQUIRES_SHARED(layout_mutex_);
  [[nodiscard]] bool reads_as_zeros(Sectors from, Sectors to) const
      OBD_REQUIRES_SHARED(layout_mutex_);

  FileSystem& fs_;
  ImageConfig config_;
  uint64_t size_ = 0;
  bool writable_ = false;
  ZeroDetection detect_zeroes_ = ZeroDetection::off;
  std::vector<LayerStore::Layer> lowers_;
  std::shared_ptr<const FrozenIndex> frozen_;
  std::unique_ptr<WritableLayer> upper_;
  // Shared by every request; exclusively, whatever moves, cuts or punches data. Before all other
  // locks of image and upper, but for the reclaimer's.
  mutable SharedMutex layout_mutex_;
  RangeLocks block_locks_;
  std::unique_ptr<Counters> counters_;
  std::unique_ptr<SpaceReclaimer> reclaimer_;  // of an upper that is open for writing
};

// Seals the upper of an image: its data file becomes the topmost lower in place, the config is
// rewritten, the index log removed. Finishes a seal that a crash interrupted. Returns warnings.
Result<std::vector<std::string>> seal_image(FileSystem& fs, const std::string& config_path);

}  // namespace obd
