// Opening a writable layer, and beginning a session on it.
//
// load() only reads. It decides which records of the log count (log_reader.cpp) and builds the live
// index. Whatever must be put right before something can be appended waits for begin_session():
//
//   data file   an append file whose length is no multiple of a sector is lengthened to one; a
//               sparse file shorter than its disk is lengthened; the virtual size goes into the
//               header
//   log         is written anew (synced under a temporary name, renamed, folder synced) when
//               part of it does not count, when another writer's records end it, or when a sparse
//               layer has none yet. The data it names is synced first, so the new log may claim
//               that everything in it is stable.
//   session     a marker with this boot's id is appended, unless the last session was of this boot
//   device      data file, log and folder are synced: a killed process may have left any of them in
//               the page cache only. So no record of this session can be on disk without the
//               marker, and none can depend on a name or a marker that a power cut takes back.
//
// A crash between any two of these steps leaves the old state or the new, and the next open finds
// either.

#include <array>

#include "core/format/log_marker.h"
#include "core/layer/writable_layer.h"

namespace obd {
namespace {

// Host blocks may be large (NFS says 1 MiB); beyond this, copying the rest of a block up costs
// more than what it is worth to readers that go by allocation alone.
constexpr uint64_t kMaxGranularity = 64 * 1024;

uint64_t choose_granularity(uint64_t host_block) {
  uint64_t granularity = kBlockSize;
  while (granularity < host_block && granularity < kMaxGranularity) granularity *= 2;
  return granularity;
}

bool is_same_file(const FileInfo& a, const FileInfo& b) {
  return a.device == b.device && a.inode == b.inode;
}

Result<lsmt::Header> read_header_block(const File& file, uint64_t offset, const char* part) {
  std::array<std::byte, lsmt::kHeaderSize> bytes{};
  OBD_TRY(read_exactly(file, bytes, offset));
  return lsmt::decode_header(bytes, file.path() + ": " + part);
}

}  // namespace

WritableLayer::WritableLayer(FileSystem& fs, std::string index_path, const Options& options)
    : fs_(fs), index_path_(std::move(index_path)), options_(options) {}

Result<std::unique_ptr<WritableLayer>> WritableLayer::open(FileSystem& fs,
                                                           const std::string& data_path,
                                                           const std::string& index_path,
                                                           const Options& options) {
  // The log is replaced by renaming, which must replace the file and not a link to it.
  OBD_TRY_ASSIGN(std::string real_index_path, fs.canonical(index_path));
  std::unique_ptr<WritableLayer> layer(new WritableLayer(fs, std::move(real_index_path), options));
  OBD_TRY(layer->load(data_path));
  return layer;
}

Result<std::string> update_path(FileSystem& fs, const std::string& data_path) {
  OBD_TRY_ASSIGN(const std::string real, fs.canonical(data_path));
  return real + ".update";
}

Result<void> WritableLayer::load(const std::string& data_path) {
  OBD_TRY_ASSIGN(const std::string boot_id, fs_.boot_id());
  boot_hash_ = lsmt::marker_hash(boot_id);

  OBD_TRY_ASSIGN(data_, fs_.open(data_path, options_.access));
  if (options_.access == Access::read_write) {
    OBD_TRY(data_->lock(LockMode::exclusive));
  } else if (!options_.force_share) {
    OBD_TRY(data_->lock(LockMode::shared));
  }
  OBD_TRY(load_data_header());

  OBD_TRY_ASSIGN(auto log_file, fs_.open(index_path_, options_.access));
  OBD_TRY_ASSIGN(index_info_, log_file->info());
  OBD_TRY_ASSIGN(const FileInfo data_info, data_->info());
  if (is_same_file(index_info_, data_info)) {
    return fail(EINVAL, "{}: data and index of the upper are the same file", data_->path());
  }
  if (kind_ == UpperKind::sparse && data_info.links > 1 && options_.access == Access::read_write) {
    // Each writes in place, so the first write changes the other image's disk.
    OBD_TRY(refuse_other_names("writing to it"));
  }
  for (const FileInfo& info : {data_info, index_info_}) {
    if (info.links <= 1) continue;
    warnings_.push_back(fmt::format(
        "{}: has {} names (hard links): images that use different ones overwrite each other's "
        "data; give each files of its own (cp --reflink=auto)",
        info.inode == data_info.inode ? data_->path() : index_path_, info.links));
  }
  if (kind_ == UpperKind::sparse) granularity_ = choose_granularity(data_info.block_size);
  space_.reset(
      Sectors::floor(align_up(std::max<uint64_t>(data_info.size, lsmt::kHeaderSize), kBlockSize)));

  if (kind_ == UpperKind::sparse && index_info_.size == 0) {
    virtual_size_ = header_.virtual_size != 0 ? header_.virtual_size : options_.lowers_size;
    header_outdated_ = header_.virtual_size != virtual_size_;
    header_.virtual_size = virtual_size_;
    scan_.foreign = true;
    scan_.must_rewrite = true;
    data_dirty_ = true;
    if (header_.has_log) {
      scan_.losses.push_back(emptied_log());
      warnings_.push_back(scan_.losses.back());
      OBD_TRY(refuse_to_write_over_losses());
    }
    OBD_TRY(adopt_allocated_ranges());
  } else {
    OBD_TRY(load_log(std::move(log_file)));
  }
  if (pending_update_ && !options_.finish_update) {
    OBD_TRY_ASSIGN(const std::string update, update_path(fs_, data_path));
    return fail(
        EUCLEAN,
        "{}: overlaybd-resize or overlaybd-apply has begun to change what is on the disk, and was "
        "interrupted; run that command again with the config of the image ('overlaybd-apply "
        "LAYER.tar CONFIG', 'overlaybd-resize --config CONFIG --size GB'), which finishes that "
        "with {}",
        data_path, update);
  }

  OBD_TRY_ASSIGN(const bool sealed, ends_in_own_trailer());
  sealed_in_place_ = sealed;
  return {};
}

Result<void> WritableLayer::load_data_header() {
  OBD_TRY_ASSIGN(const FileInfo info, data_->info());
  if (info.size < lsmt::kHeaderSize) {
    return fail(EINVAL, "{}: {} bytes are too few for a header of {}", data_->path(), info.size,
                lsmt::kHeaderSize);
  }
  OBD_TRY_ASSIGN(header_, read_header_block(*data_, 0, "header"));
  if (!header_.is_header() || !header_.is_data()) {
    return fail(EINVAL, "{}: header: flags {:#x} are not those of a writable layer's data file",
                data_->path(), header_.flags);
  }
  if (header_.is_sealed()) {
    return fail(EINVAL,
                "{}: header: flags {:#x} say that the layer is sealed; it can only be a lower",
                data_->path(), header_.flags);
  }
  kind_ = header_.is_sparse() ? UpperKind::sparse : UpperKind::append;
  if (const uint32_t unknown = header_.unknown_flags()) {
    if (options_.access == Access::read_write) {
      return fail(ENOTSUP,
                  "{}: header: flags {:#x} have the unknown bits {:#x}, so the layer can "
                  "only be opened read-only",
                  data_->path(), header_.flags, unknown);
    }
    warnings_.push_back(fmt::format("{}: header: flags {:#x} have the unknown bits {:#x}",
                                    data_->path(), header_.flags, unknown));
  }
  return {};
}

Result<void> WritableLayer::load_log(std::unique_ptr<File> log_file) {
  if (index_info_.size < lsmt::kHeaderSize) {
    return fail(EINVAL, "{}: {} bytes are too few for an index header of {}", log_file->path(),
                index_info_.size, lsmt::kHeaderSize);
  }
  OBD_TRY_ASSIGN(const lsmt::Header log_header, read_log_header(*log_file));
  if (const uint32_t unknown = log_header.unknown_flags()) {
    if (options_.access == Access::read_write) {
      return fail(ENOTSUP,
                  "{}: index header: flags {:#x} have the unknown bits {:#x}, so the layer "
                  "can only be opened read-only",
                  log_file->path(), log_header.flags, unknown);
    }
    warnings_.push_back(fmt::format("{}: index header: flags {:#x} have the unknown bits {:#x}",
                                    log_file->path(), log_header.flags, unknown));
  }
  if (log_header.uuid != header_.uuid) {
    return fail(EINVAL,
                "{}: index header: uuid {} is not the uuid {} of {}: the files belong to "
                "different layers",
                log_file->path(), log_header.uuid.text(), header_.uuid.text(), data_->path());
  }

  if (log_header.virtual_size != 0 && header_.virtual_size != 0 &&
      log_header.virtual_size != header_.virtual_size) {
    warnings_.push_back(fmt::format(
        "{}: index header: virtual_size {} is not the {} of {}; it wins", log_file->path(),
        log_header.virtual_size, header_.virtual_size, data_->path()));
  }
  // The index header's size comes first, as for overlaybd; then the data header's; a layer made for
  // any size takes that of its lowers.
  virtual_size_ = log_header.virtual_size;
  if (virtual_size_ == 0) virtual_size_ = header_.virtual_size;
  if (virtual_size_ == 0) virtual_size_ = options_.lowers_size;
  header_outdated_ =
      header_.virtual_size != virtual_size_ || log_header.virtual_size != virtual_size_;
  header_.virtual_size = virtual_size_;

  OBD_TRY_ASSIGN(scan_, scan_log(*log_file, boot_hash_));
  OBD_TRY_ASSIGN(const FileInfo data_info, data_->info());
  LogBounds bounds;
  bounds.sparse = kind_ == UpperKind::sparse;
  bounds.data_size = data_info.size;
  bounds.disk_end = Sectors::floor(virtual_size_);
  {
    const WriterLock index_lock(index_mutex_);
    OBD_TRY(replay_log(*log_file, bounds, scan_, index_));
  }
  if (index_info_.size == lsmt::kHeaderSize) {
    if (kind_ == UpperKind::append && data_info.size > lsmt::kHeaderSize) {
      scan_.losses.push_back(fmt::format(
          "{}: has no records, so nothing names the {} bytes of data in {}: what was written is "
          "lost unless there is a copy of the index log: restore it, or give the data up "
          "(truncate --size={} on the data file)",
          index_path_, data_info.size - lsmt::kHeaderSize, data_->path(), lsmt::kHeaderSize));
    } else if (kind_ == UpperKind::sparse && header_.has_log) {
      scan_.losses.push_back(emptied_log());
    }
    if (!scan_.losses.empty()) OBD_TRY(refuse_to_write_over_losses());
  }
  warnings_.insert(warnings_.end(), scan_.warnings.begin(), scan_.warnings.end());
  warnings_.insert(warnings_.end(), scan_.losses.begin(), scan_.losses.end());

  const IndexLog::Position end{scan_.trusted_records, scan_.changes, scan_.trusted_crc};
  stable_ = {scan_.committed_records, scan_.changes - scan_.uncommitted_changes,
             scan_.committed_crc};
  stable_changes_ = stable_.changes;
  recorded_end_ = scan_.data_end.bytes();
  log_bytes_ = lsmt::kHeaderSize + scan_.whole_records * lsmt::kEntrySize;
  // What a killed process wrote may still be in the page cache only.
  data_dirty_ = !scan_.clean;
  pending_update_ = scan_.pending_update;
  const MutexLock log_lock(log_mutex_);
  log_ = std::make_unique<IndexLog>(std::move(log_file), end);
  return {};
}

// Of a sparse layer that once had a log with entries.
std::string WritableLayer::emptied_log() const {
  return fmt::format(
      "{}: has no records, but the index log of {} never was without: the trims and zeros that it "
      "held are forgotten, so older data of the layers below may show; restore it from a copy",
      index_path_, data_->path());
}

// The first write would make a log that looks whole, and nobody could tell any more what is
// missing.
Result<void> WritableLayer::refuse_to_write_over_losses() const {
  if (options_.access == Access::read_only) return {};
  OBD_TRY_ASSIGN(const auto written, data_->next_data(lsmt::kHeaderSize));
  if (!written) return {};
  return fail(EUCLEAN, "{}; until then the image only opens read-only (obd check shows its state)",
              scan_.losses.back());
}

Result<void> WritableLayer::adopt_allocated_ranges() {
  const Sectors disk_end = std::min(Sectors::floor(virtual_size_), lsmt::kAddressableEnd);
  uint64_t offset = lsmt::kHeaderSize;
  for (;;) {
    OBD_TRY_ASSIGN(const auto run, data_->next_data(offset));
    if (!run) return {};
    Sectors from = Sectors::floor(run->offset) - lsmt::kFirstDataSector;
    const Sectors to =
        std::min(Sectors::ceil(run->offset + run->length) - lsmt::kFirstDataSector, disk_end);
    const WriterLock index_lock(index_mutex_);
    while (from < to) {
      const Sectors part = std::min(lsmt::kMaxAlignedLength, to - from);
      index_.reserve(1);
      index_.insert({from, part, from + lsmt::kFirstDataSector, ExtentKind::data, kUpperLayer});
      from += part;
    }
    offset = run->offset + run->length;
  }
}

// A guest may store a whole LSMT layer as its own data, so magic numbers at the file's end prove
// nothing: the trailer must be this layer's, and lie behind all data that the log names.
Result<bool> WritableLayer::ends_in_own_trailer() const {
  OBD_TRY_ASSIGN(const FileInfo info, data_->info());
  if (info.size < 2 * lsmt::kHeaderSize) return false;
  const uint64_t trailer_offset = info.size - lsmt::kHeaderSize;
  std::array<std::byte, lsmt::kHeaderSize> bytes{};
  OBD_TRY(read_exactly(*data_, bytes, trailer_offset));
  if (!lsmt::has_magic(bytes)) return false;
  const auto trailer = lsmt::decode_header(bytes, data_->path() + ": trailer");
  if (!trailer || trailer->is_header() || !trailer->is_data() || !trailer->is_sealed())
    return false;
  const Sectors data_end = kind_ == UpperKind::sparse
                               ? lsmt::kFirstDataSector + Sectors::floor(virtual_size_)
                               : std::max(scan_.data_end, lsmt::kFirstDataSector);
  return trailer->uuid == header_.uuid && trailer->is_sparse() == header_.is_sparse() &&
         trailer->index_offset >= data_end.bytes() && trailer->index_offset <= trailer_offset &&
         trailer->index_size <= (trailer_offset - trailer->index_offset) / lsmt::kEntrySize;
}

Result<void> WritableLayer::ensure_session() {
  if (session_ready_) return {};
  const MutexLock lock(session_mutex_);
  if (session_ready_) return {};
  OBD_TRY(begin_session());
  session_ready_ = true;
  return {};
}

Result<void> WritableLayer::begin_session() {
  OBD_TRY(mend_data_file());
  if (scan_.must_rewrite || header_outdated_) {
    OBD_TRY(rewrite_log());
  }
  if (!scan_.session_open) {
    const MutexLock log_lock(log_mutex_);
    OBD_TRY(log_->append_session(boot_hash_));
    scan_.session_open = true;
    settled_ = false;  // a flush before the first change may have settled what was there
  }
  OBD_TRY(settle());
  if (kind_ == UpperKind::append) return track_space();
  if (!scan_.clean) {
    // A killed process may have left zeroed blocks that it did not come to give back.
    stale_.add({Sectors(), Sectors::floor(virtual_size_)}, stable_changes_);
  }
  return {};
}

// A log that reads well proves nothing about the device: a process killed between a write and its
// sync, or between a rename and the folder's, leaves the same pages behind as one that was not.
Result<void> WritableLayer::settle() {
  if (settled_) return {};
  data_dirty_ = true;
  OBD_TRY(sync_data());
  auto settle_log = [&]() -> Result<void> {
    if (IndexLog* const log = log_at_rest()) {
      ++syncs_;
      OBD_TRY(log->sync());
    }
    return fs_.sync_directory(directory_of(index_path_));
  };
  if (auto settled = settle_log(); !settled) return give_up(std::move(settled).error(), true);
  settled_ = true;
  return {};
}

Result<void> WritableLayer::mend_data_file() {
  OBD_TRY_ASSIGN(const FileInfo info, data_->info());
  const uint64_t wanted = kind_ == UpperKind::sparse
                              ? std::max(info.size, lsmt::kHeaderSize + virtual_size_)
                              : align_up(info.size, kSectorSize);
  if (wanted != info.size) OBD_TRY(data_->truncate(wanted));
  if (header_outdated_) {
    // One sector, so that a power cut leaves the old header or the new.
    const auto bytes = lsmt::encode_header(header_);
    OBD_TRY(data_->write_at(std::span(bytes).first(kSectorSize), 0));
  }
  if (wanted != info.size || header_outdated_) data_dirty_ = true;
  return {};
}

Result<void> WritableLayer::rewrite_log() { return replace_log(header_, index_at_rest()); }

Result<void> WritableLayer::replace_log(const lsmt::Header& header, const LiveIndex& index) {
  OBD_TRY(sync_data());
  auto draft = IndexLog::prepare(fs_, index_path_, header, index, pending_update_,
                                 kind_ == UpperKind::sparse, index_info_);
  if (!draft) return std::unexpected<Error>(std::move(draft).error());
  // From here on either log may be the one that a crash leaves, so a failure ends writing.
  auto installed = IndexLog::install(fs_, index_path_, std::move(*draft));
  if (!installed) return give_up(std::move(installed).error(), false);
  const MutexLock log_lock(log_mutex_);
  const uint64_t changes_so_far = changes();
  log_ = std::move(*installed);
  changes_before_log_ = changes_so_far - log_->position().changes;
  stable_ = log_->position();
  stable_changes_ = changes_so_far;
  log_bytes_ = lsmt::kHeaderSize + stable_.records * lsmt::kEntrySize;
  header_outdated_ = false;
  scan_.must_rewrite = false;
  scan_.session_open = false;
  return {};
}

}  // namespace obd
