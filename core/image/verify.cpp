#include "core/image/verify.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "core/image/config.h"
#include "core/image/image.h"

namespace obd {
namespace {

constexpr uint64_t kChunk = uint64_t{4} << 20;
// Enough to see what is wrong; a layer that is ruined has a fault in every block.
constexpr size_t kMaxFaultsTold = 10;

// What the threads that read one layer have in common.
class LayerReading {
 public:
  explicit LayerReading(const Blob& blob) : blob_(blob) {}

  // Reads chunks until none is left or reading is stopped.
  void work() {
    try {
      std::vector<std::byte> buffer(static_cast<size_t>(std::min<uint64_t>(kChunk, blob_.size())));
      for (;;) {
        const uint64_t offset = next_.fetch_add(kChunk);
        if (offset >= blob_.size() || stopped_) return;
        if (skip_hole(offset)) continue;
        const auto chunk = std::span(buffer).first(
            static_cast<size_t>(std::min<uint64_t>(kChunk, blob_.size() - offset)));
        read(chunk, offset);
        done_ += chunk.size();
      }
    } catch (const std::bad_alloc&) {
      add({ENOMEM, "out of memory"});
    }
  }

  void stop() { stopped_ = true; }
  [[nodiscard]] uint64_t done() const { return done_; }

  // Once the threads have ended.
  void conclude(VerifyReport& report) {
    const MutexLock lock(mutex_);
    ++report.layers;
    report.bytes += blob_.size();
    if (blob_.container().checksums) {
      report.checked += blob_.size() - std::min<uint64_t>(blob_.size(), bad_bytes_);
    }
    report.bad_blocks += bad_blocks_;
    for (const Error& error : faults_) {
      const bool wrong = error.code == EBADMSG;
      if (!wrong) report.check.complete = false;
      report.check.findings.push_back({wrong, error.message});
    }
    if (fault_count_ > faults_.size()) {
      report.check.findings.push_back({true, fmt::format("{}: and {} faults more", blob_.path(),
                                                         fault_count_ - faults_.size())});
    }
  }

 private:
  // True when the host holds nothing of the chunk at `offset`: there is nothing to read, and
  // nothing that can be damaged. The next chunk is then the one with the file's next data.
  bool skip_hole(uint64_t offset) {
    const Container& container = blob_.container();
    if (container.compression != Compression::none) return false;
    const auto data = blob_.file().next_data(container.offset + offset);
    if (!data) return false;  // reading tells what is wrong
    const uint64_t begin = *data ? (*data)->offset - container.offset : blob_.size();
    const uint64_t target = align_down(std::min(begin, blob_.size()), kChunk);
    if (target <= offset && begin < blob_.size()) return false;
    const uint64_t next = std::min(std::max(target, offset + kChunk), blob_.size());
    uint64_t before = next_;
    while (before < next && !next_.compare_exchange_weak(before, next)) {
    }
    done_ += std::min(kChunk, blob_.size() - offset) + (before < next ? next - before : 0);
    return true;
  }

  void read(std::span<std::byte> chunk, uint64_t offset) {
    auto whole = read_exactly(blob_, chunk, offset);
    if (whole) return;
    bool found = false;
    // Block by block, to tell of each that is bad.
    const uint64_t step = blob_.container().compression == Compression::none
                              ? chunk.size()
                              : blob_.container().block_size;
    for (uint64_t at = 0; at < chunk.size() && !stopped_; at += step) {
      const auto block = chunk.subspan(at, std::min<uint64_t>(step, chunk.size() - at));
      if (auto got = read_exactly(blob_, block, offset + at); !got) {
        if (got.error().code == EBADMSG) {
          ++bad_blocks_;
          bad_bytes_ += block.size();
        }
        add(std::move(got).error());
        found = true;
      }
    }
    // Right the second time: the host is not to be relied on.
    if (!found && !stopped_) add({EIO, std::move(whole).error().message});
  }

  void add(Error error) {
    const MutexLock lock(mutex_);
    ++fault_count_;
    if (faults_.size() < kMaxFaultsTold) faults_.push_back(std::move(error));
  }

  const Blob& blob_;
  std::atomic<uint64_t> next_ = 0;
  std::atomic<uint64_t> done_ = 0;
  std::atomic<uint64_t> bad_blocks_ = 0;
  std::atomic<uint64_t> bad_bytes_ = 0;
  std::atomic<bool> stopped_ = false;
  Mutex mutex_;
  std::vector<Error> faults_ OBD_GUARDED_BY(mutex_);
  uint64_t fault_count_ OBD_GUARDED_BY(mutex_) = 0;
};

Result<void> read_layer(const Blob& blob, unsigned threads, const ReportProgress& progress,
                        VerifyReport& report) {
  LayerReading reading(blob);
  std::atomic<unsigned> running = 0;
  Result<void> reported;
  {
    std::vector<std::jthread> workers;
    for (unsigned i = 0; i < threads && i * kChunk < blob.size(); ++i) {
      ++running;
      workers.emplace_back([&] {
        reading.work();
        --running;
      });
    }
    while (running > 0 && reported) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      reported = report_progress(progress, "verifying " + blob.path(), reading.done(), blob.size());
      if (!reported) reading.stop();
    }
  }
  OBD_TRY(reported);
  reading.conclude(report);
  return {};
}

// The upper's own extents, read through the image: there are no checksums.
Result<void> read_upper(FileSystem& fs, const ImageConfig& config, bool force_share,
                        const ReportProgress& progress, VerifyReport& report) {
  ImageConfig alone = config;
  alone.lowers.clear();
  const auto image =
      Image::open(fs, alone, {.access = Access::read_only, .force_share = force_share});
  if (!image) {
    // Check has told what is wrong with it, or a writer has come since.
    report.check.complete = false;
    if (image.error().code == EBUSY) report.check.in_use = true;
    const auto told = [&](const Finding& finding) { return finding.text == image.error().message; };
    if (std::ranges::none_of(report.check.findings, told)) {
      report.check.findings.push_back({false, image.error().message});
    }
    return {};
  }
  ++report.layers;
  std::vector<ByteRange> runs;
  uint64_t total = 0;
  OBD_TRY((*image)->extents(0, (*image)->size(), [&](const ImageExtent& extent) {
    if (extent.kind != ExtentKind::data) return true;
    runs.push_back({extent.offset, extent.length});
    total += extent.length;
    return true;
  }));
  std::vector<std::byte> buffer(kChunk);
  uint64_t done = 0;
  for (const ByteRange& run : runs) {
    for (uint64_t at = 0; at < run.length;) {
      const auto piece =
          std::span(buffer).first(static_cast<size_t>(std::min(kChunk, run.length - at)));
      if (auto got = (*image)->read(piece, run.offset + at); !got) {
        report.check.complete = false;
        report.check.findings.push_back({false, got.error().message});
        return {};
      }
      at += piece.size();
      done += piece.size();
      OBD_TRY(report_progress(progress, "reading " + config.upper->data, done, total));
    }
  }
  report.bytes += total;
  return {};
}

}  // namespace

Result<VerifyReport> verify_image_or_layer(FileSystem& fs, const std::string& path,
                                           const VerifyOptions& options,
                                           const ReportProgress& progress) {
  VerifyReport report;
  OBD_TRY_ASSIGN(report.check, check_image_or_layer(fs, path, options.force_share));
  const unsigned threads =
      options.threads != 0 ? options.threads : std::max(1U, std::thread::hardware_concurrency());

  ImageConfig config;
  config.lowers = {path};
  OBD_TRY_ASSIGN(const bool is_config, is_config_file(fs, path));
  if (is_config) {
    auto loaded = load_config(fs, path);
    if (!loaded) return report;  // that is among the findings
    config = std::move(*loaded);
  }
  for (const std::string& lower : config.lowers) {
    const auto layer = SealedLayer::open(fs, lower);
    if (!layer) continue;  // so is this
    OBD_TRY(read_layer((*layer)->blob(), threads, progress, report));
  }
  if (config.upper) {
    OBD_TRY(read_upper(fs, config, options.force_share, progress, report));
  }
  return report;
}

}  // namespace obd
