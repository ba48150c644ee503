// An image together with the model of its disk: every operation is done on both, with marks in the
// file system's recording.
//
// Ownership: refers to the file system and the model, owns the image. Thread-safety: as Image, but
// concurrent changes must not share a sector; open, close and drop come alone. Errors: the image's.

#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/image/image.h"
#include "test/support/disk_model.h"
#include "test/support/memory_file_system.h"

namespace obd::test {

// Reclaims as much of a small disk as it would of a large one.
ReclaimOptions small_reclaim(size_t region_blocks);

class ModelledImage {
 public:
  ModelledImage(MemoryFileSystem& fs, ImageConfig config, DiskModel& model)
      : fs_(fs), config_(std::move(config)), model_(model) {}

  Result<void> open(Access access = Access::read_write);
  // From the next open() on.
  void detect_zeroes(ZeroDetection detection) { detect_zeroes_ = detection; }
  // From the next open() on: dead space is tracked, in regions of so many blocks.
  void reclaim(size_t region_blocks) { region_blocks_ = region_blocks; }
  // Flushes and closes; counts as a flush of the model.
  Result<void> close();
  // As if the server had been killed.
  void drop() { image_.reset(); }
  [[nodiscard]] Image& image() { return *image_; }
  [[nodiscard]] bool is_open() const { return image_ != nullptr; }

  Result<void> write(std::span<const std::byte> data, uint64_t offset, bool fua = false);
  // With fast_only the model takes it as done after the fact: not for crash tests.
  Result<void> zero(uint64_t offset, uint64_t length, ZeroOptions options = {});
  Result<void> trim(uint64_t offset, uint64_t length, bool fua = false);
  Result<void> flush();
  // Promises nothing.
  Result<void> reclaim_now();
  // The same of Image::reclaim_step().
  Result<void> reclaim_step();

  Result<std::vector<std::byte>> read_all();

 private:
  template <typename Change>
  Result<void> change(DiskModel::Ticket ticket, bool fua, Change&& change);

  MemoryFileSystem& fs_;
  ImageConfig config_;
  DiskModel& model_;
  ZeroDetection detect_zeroes_ = ZeroDetection::off;
  size_t region_blocks_ = 0;  // 0: nothing is reclaimed
  std::unique_ptr<Image> image_;
};

}  // namespace obd::test
