// The read side of an image, and its opening and closing. image_write.cpp has the write side.
//
// Every request holds the layout lock shared; it is taken exclusively to give space back and for
// the rare write of part of a sector to an append layer. So an extent that a request has looked up
// keeps its bytes until the request ends: sealed layers never change, append data is never moved,
// and blocks are punched only when nobody is reading.

#include "core/image/image.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "core/image/image_counters.h"
#include "core/image/image_resolve.h"

namespace obd {
namespace {

constexpr int kPunchRoundsPerFlush = 16;
// The shortest read that is looked at for pieces that are far away, and at how many pieces a time:
// a look costs a third of a piece that is near.
constexpr size_t kScatteredRead = size_t{64} << 10;
constexpr size_t kPiecesPerLook = 16;
constexpr std::chrono::seconds kMostReclaimAtClose{2};
constexpr std::chrono::hours kMostReclaimNow{1};

bool continues(const ImageExtent& run, const ImageExtent& next) {
  if (run.kind != next.kind) return false;
  if (run.kind == ExtentKind::hole) return true;
  if (run.layer != next.layer) return false;
  return run.kind == ExtentKind::zero || run.physical + run.length == next.physical;
}

// A resultFile is replaced without a look at what it holds, so it must not be part of the image.
Result<void> refuse_own_file(FileSystem& fs, const std::string& result_file,
                             const ImageConfig& config) {
  OBD_TRY_ASSIGN(const bool there, fs.exists(result_file));
  if (!there) return {};
  OBD_TRY_ASSIGN(const auto own, image_file_at(fs, config, result_file));
  if (!own) return {};
  return fail(EINVAL, "{}: resultFile {} is the same file as {}, a part of the image", config.path,
              result_file, *own);
}

Result<std::unique_ptr<Image>> report_result(FileSystem& fs, const std::string& result_file,
                                             Result<std::unique_ptr<Image>> opened) {
  if (result_file.empty()) return opened;
  const std::string text = opened ? "success" : opened.error().message;
  if (auto written = replace_file(fs, result_file, text); !written) {
    // The reader of the resultFile would wait for ever; an error of the image itself comes first.
    if (opened) return std::unexpected<Error>(std::move(written).error());
    Error error = std::move(opened).error();
    error.message +=
        fmt::format(" (and the resultFile cannot be written: {})", written.error().message);
    return std::unexpected<Error>(std::move(error));
  }
  return opened;
}

}  // namespace

Image::Image(FileSystem& fs, ImageConfig config)
    : fs_(fs), config_(std::move(config)), counters_(std::make_unique<Counters>()) {}

Image::~Image() = default;

Result<std::unique_ptr<Image>> Image::open(FileSystem& fs, const std::string& config_path,
                                           const OpenOptions& options) {
  const bool report = options.access == Access::read_write;
  auto config = load_config(fs, config_path);
  if (!config) {
    Result<std::unique_ptr<Image>> failed = std::unexpected<Error>(std::move(config).error());
    const std::string result_file = report ? find_result_file(fs, config_path) : "";
    return report_result(fs, result_file, std::move(failed));
  }
  const std::string result_file = report ? config->result_file : "";
  if (!result_file.empty()) OBD_TRY(refuse_own_file(fs, result_file, *config));
  auto image = open(fs, *config, options);
  if (!image) image = std::unexpected(explain_missing_file(fs, *config, std::move(image).error()));
  return report_result(fs, result_file, std::move(image));
}

Result<std::unique_ptr<Image>> Image::open(FileSystem& fs, const ImageConfig& config,
                                           const OpenOptions& options) {
  std::unique_ptr<Image> image(new Image(fs, config));
  OBD_TRY(image->open_layers(options));
  return image;
}

Result<void> Image::open_layers(const OpenOptions& options) {
  if (config_.lowers.size() > kMaxLowers) {
    return fail(EINVAL, "{}: {} lowers are more than the {} that an image can have; merge some",
                config_.path, config_.lowers.size(), kMaxLowers);
  }
  if (config_.lowers.empty() && !config_.upper) {
    std::string sentence = config_.path + ": the image has neither lowers nor an upper";
    for (const std::string& warning : config_.warnings) sentence += "; " + warning;
    return fail(EINVAL, "{}", sentence);
  }
  detect_zeroes_ = options.detect_zeroes;
  const auto store = options.layers ? options.layers : std::make_shared<LayerStore>();
  lowers_.reserve(config_.lowers.size());
  uint64_t lowers_size = 0;
  for (const std::string& path : config_.lowers) {
    auto layer = store->open(fs_, path);
    if (!layer) {
      return fail(layer.error().code, "{}: lowers[{}]: {}", config_.path, lowers_.size(),
                  layer.error().message);
    }
    if ((*layer)->trailer().virtual_size != 0) lowers_size = (*layer)->trailer().virtual_size;
    lowers_.push_back(std::move(*layer));
  }
  size_ = options.beyond_the_end ? lsmt::kAddressableEnd.bytes() : lowers_size;
  if (config_.upper) {
    const WritableLayer::Options upper_options{options.access,
                                               options.force_share,
                                               lowers_size,
                                               options.finish_update,
                                               options.reclaim.on,
                                               options.max_upper_size,
                                               options.reclaim.region_blocks};
    OBD_TRY_ASSIGN(
        upper_, WritableLayer::open(fs_, config_.upper->data, config_.upper->index, upper_options));
    OBD_TRY(refuse_shared_files());
    writable_ = options.access == Access::read_write;
    if (writable_ && upper_->sealed_in_place()) {
      return fail(EROFS,
                  "{}: the upper is sealed already, but the config does not say so; run "
                  "'obd seal {}' to finish sealing",
                  config_.upper->data, config_.path);
    }
    size_ = upper_->virtual_size();
    if (writable_) {
      reclaimer_ = std::make_unique<SpaceReclaimer>(*upper_, layout_mutex_, options.reclaim);
    }
  }

  OBD_TRY_ASSIGN(frozen_, store->merge(lowers_, Sectors::floor(size_)));
  return {};
}

// A sealed layer is never opened for writing, under whatever name it is reached.
Result<void> Image::refuse_shared_files() const {
  OBD_TRY_ASSIGN(const FileInfo upper, upper_->data_file().info());
  for (size_t number = 0; number < lowers_.size(); ++number) {
    OBD_TRY_ASSIGN(const FileInfo lower, lowers_[number]->blob().file().info());
    if (lower.device == upper.device && lower.inode == upper.inode) {
      return fail(EINVAL, "{}: lowers[{}] {} is the same file as the upper's data", config_.path,
                  number, lowers_[number]->path());
    }
  }
  return {};
}

Result<void> Image::read_layer(LayerNumber layer, std::span<std::byte> out, uint64_t offset) const {
  if (layer == kUpperLayer) return read_exactly(upper_->data_file(), out, offset);
  auto read = read_exactly(lowers_[layer]->blob(), out, offset);
  // NBD has no word for damaged data.
  if (!read && read.error().code == EBADMSG) read.error().code = EIO;
  return read;
}

Result<void> Image::check_range(uint64_t offset, uint64_t length, int past_end) const {
  if (offset > size_ || length > size_ - offset) {
    return fail(past_end, "{}: {} bytes at offset {} are not within the disk of {} bytes",
                config_.path, length, offset, size_);
  }
  return {};
}

Result<void> Image::read(std::span<std::byte> out, uint64_t offset) const {
  OBD_TRY(check_range(offset, out.size(), EINVAL));
  counters_->count(counters_->reads, counters_->read_bytes, out.size());
  if (out.empty()) return {};
  const ReaderLock layout(layout_mutex_);
  return read_locked(out, offset);
}

// The pieces of a scattered read are read one after the other, which is the fastest way where the
// host has them in its page cache. Where it has not, waiting for the device once for each would
// take long: so every sixteenth piece is looked at, and when it would have to be waited for, all of
// the rest is asked for. docs/performance.md has the figures, io_uring's and mmap's too.
Result<void> Image::read_locked(std::span<std::byte> out, uint64_t offset) const {
  const uint64_t end = offset + out.size();
  bool is_asked_for = out.size() < kScatteredRead;
  size_t pieces = 0;
  return for_each_extent(
      Sectors::floor(offset), Sectors::ceil(end), [&](const Extent& extent) -> Result<bool> {
        const uint64_t from = std::max(offset, extent.logical.bytes());
        const uint64_t to = std::min(end, extent.end().bytes());
        const std::span<std::byte> part = out.subspan(from - offset, to - from);
        if (extent.kind == ExtentKind::data) {
          if (!is_asked_for && pieces++ % kPiecesPerLook == 0 && part.size() < end - from &&
              !is_near(extent)) {
            layout_mutex_.assert_held_shared();
            OBD_TRY(prefetch_locked(from, end - from));
            is_asked_for = true;
          }
          OBD_TRY(read_layer(extent.layer, part,
                             extent.physical.bytes() + (from - extent.logical.bytes())));
        } else {
          std::memset(part.data(), 0, part.size());
        }
        return true;
      });
}

Result<void> Image::extents(uint64_t offset, uint64_t length,
                            const std::function<bool(const ImageExtent&)>& visit) const {
  OBD_TRY(check_range(offset, length, EINVAL));
  const uint64_t end = offset + length;
  const ReaderLock layout(layout_mutex_);
  ImageExtent run;
  bool wanted = true;
  OBD_TRY(for_each_extent(
      Sectors::floor(offset), Sectors::ceil(end), [&](const Extent& extent) -> Result<bool> {
        ImageExtent next;
        next.offset = std::max(offset, extent.logical.bytes());
        next.length = std::min(end, extent.end().bytes()) - next.offset;
        next.kind = extent.kind;
        if (extent.kind != ExtentKind::hole) {
          next.layer = extent.layer == kUpperLayer ? lowers_.size() : extent.layer;
        }
        if (extent.kind == ExtentKind::data) {
          next.physical = extent.physical.bytes() + (next.offset - extent.logical.bytes());
        }
        if (run.length != 0 && continues(run, next)) {
          run.length += next.length;
          return true;
        }
        if (run.length != 0) wanted = visit(run);
        run = next;
        return wanted;
      }));
  if (wanted && run.length != 0) (void)visit(run);
  return {};
}

bool Image::is_near(const Extent& extent) const {
  const uint64_t byte = extent.physical.bytes();
  return extent.layer == kUpperLayer ? upper_->data_file().is_near(byte)
                                     : lowers_[extent.layer]->blob().is_near(byte);
}

Result<void> Image::prefetch(uint64_t offset, uint64_t length) const {
  OBD_TRY(check_range(offset, length, EINVAL));
  const ReaderLock layout(layout_mutex_);
  return prefetch_locked(offset, length);
}

Result<void> Image::prefetch_locked(uint64_t offset, uint64_t length) const {
  return for_each_extent(Sectors::floor(offset), Sectors::ceil(offset + length),
                         [&](const Extent& extent) -> Result<bool> {
                           if (extent.kind == ExtentKind::data) {
                             const ByteRange range{extent.physical.bytes(), extent.length.bytes()};
                             if (extent.layer == kUpperLayer) {
                               upper_->data_file().prefetch(range);
                             } else {
                               lowers_[extent.layer]->blob().prefetch(range);
                             }
                           }
                           return true;
                         });
}

Result<void> Image::flush() {
  counters_->flushes.fetch_add(1, std::memory_order_relaxed);
  if (!upper_) return {};
  {
    const ReaderLock layout(layout_mutex_);
    OBD_TRY(upper_->flush());
  }
  if (reclaimer_ && reclaimer_->is_running()) return {};
  for (int round = 0; round < kPunchRoundsPerFlush && upper_->has_stale_space(); ++round) {
    const WriterLock layout(layout_mutex_);
    upper_->release_stale_space();
  }
  return {};
}

void Image::start_reclaim() {
  if (reclaimer_) reclaimer_->start();
}

Result<void> Image::reclaim_now() {
  OBD_TRY(check_writable());
  return reclaimer_->run_to_the_end(kMostReclaimNow);
}

Result<void> Image::reclaim_step() {
  OBD_TRY(check_writable());
  return reclaimer_->run_once();
}

Result<WritableLayer::Compaction> Image::compact_upper(const ReportProgress& report) {
  OBD_TRY(check_writable());
  const MutexLock paused(reclaimer_->round_mutex());
  const WriterLock layout(layout_mutex_);
  reclaimer_->forget();
  return upper_->compact(report);
}

Result<void> Image::resize_upper(uint64_t size, std::span<const SectorRange> hidden) {
  OBD_TRY(check_writable());
  const MutexLock paused(reclaimer_->round_mutex());
  const WriterLock layout(layout_mutex_);
  reclaimer_->forget();
  // Also after a failure: the disk may have its new size.
  auto resized = upper_->resize(size, hidden);
  size_ = upper_->virtual_size();
  return resized;
}

Result<void> Image::begin_update(uint64_t hash) {
  OBD_TRY(check_writable());
  const MutexLock paused(reclaimer_->round_mutex());
  const WriterLock layout(layout_mutex_);
  OBD_TRY(upper_->refuse_other_names("updating it"));
  return upper_->begin_update(hash);
}

Result<void> Image::end_update(uint64_t hash) {
  OBD_TRY(check_writable());
  const MutexLock paused(reclaimer_->round_mutex());
  const WriterLock layout(layout_mutex_);
  return upper_->end_update(hash);
}

std::optional<uint64_t> Image::pending_update() const {
  return upper_ ? upper_->pending_update() : std::nullopt;
}

const std::vector<std::string>& Image::losses() const {
  static const std::vector<std::string> kNone;
  return upper_ ? upper_->losses() : kNone;
}

Result<void> Image::refuse_other_names(std::string_view what) const {
  return upper_->refuse_other_names(what);
}

Result<void> Image::refresh_lock_holder() const {
  for (const auto& lower : lowers_) OBD_TRY(lower->blob().file().refresh_lock_holder());
  return upper_ ? upper_->refresh_lock_holder() : Result<void>();
}

Result<void> Image::close() {
  if (!writable_) return {};
  reclaimer_->stop();
  // Space that does not come back now comes back in the next session; what counts is the data.
  if (upper_->kind() == UpperKind::append) (void)reclaimer_->run_to_the_end(kMostReclaimAtClose);
  const MutexLock paused(reclaimer_->round_mutex());
  const WriterLock layout(layout_mutex_);
  OBD_TRY(upper_->flush());
  while (upper_->has_stale_space()) upper_->release_stale_space();
  return upper_->close();
}

}  // namespace obd
