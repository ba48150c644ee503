#include "test/support/modelled_image.h"

namespace obd::test {

Result<void> ModelledImage::open(Access access) {
  OpenOptions options;
  options.access = access;
  options.detect_zeroes = detect_zeroes_;
  if (region_blocks_ != 0) options.reclaim = small_reclaim(region_blocks_);
  OBD_TRY_ASSIGN(image_, Image::open(fs_, config_, options));
  return {};
}

ReclaimOptions small_reclaim(size_t region_blocks) {
  return {.on = true, .slack = 0, .region_blocks = region_blocks, .small_log_records = 10};
}

Result<void> ModelledImage::reclaim_now() {
  fs_.mark("reclaim begins");
  OBD_TRY(image_->reclaim_now());
  fs_.mark("reclaimed");
  return {};
}

Result<void> ModelledImage::reclaim_step() {
  fs_.mark("reclaim step begins");
  OBD_TRY(image_->reclaim_step());
  fs_.mark("reclaim step done");
  return {};
}

Result<void> ModelledImage::close() {
  const size_t begun = fs_.mark("close begins");
  OBD_TRY(image_->close());
  image_.reset();
  model_.complete_flush(begun, fs_.mark("closed"));
  return {};
}

template <typename Change>
Result<void> ModelledImage::change(DiskModel::Ticket ticket, bool fua, Change&& change) {
  OBD_TRY(change());
  model_.complete(ticket, fs_.mark(fmt::format("operation {} completed", ticket)), fua);
  return {};
}

Result<void> ModelledImage::write(std::span<const std::byte> data, uint64_t offset, bool fua) {
  const size_t begun = fs_.mark(fmt::format("write of {} at {}", data.size(), offset));
  return change(model_.begin_write(data, offset, begun), fua,
                [&] { return image_->write(data, offset, {.fua = fua}); });
}

Result<void> ModelledImage::zero(uint64_t offset, uint64_t length, ZeroOptions options) {
  if (options.fast_only) {
    // Whether it happens is known only afterwards.
    OBD_TRY(image_->zero(offset, length, options));
    const size_t done = fs_.mark(fmt::format("fast zero of {} at {}", length, offset));
    model_.complete(model_.begin_zero(offset, length, done), done, options.fua);
    return {};
  }
  const size_t begun = fs_.mark(fmt::format("zero of {} at {}", length, offset));
  return change(model_.begin_zero(offset, length, begun), options.fua,
                [&] { return image_->zero(offset, length, options); });
}

Result<void> ModelledImage::trim(uint64_t offset, uint64_t length, bool fua) {
  const size_t begun = fs_.mark(fmt::format("trim of {} at {}", length, offset));
  return change(model_.begin_zero(offset, length, begun), fua,
                [&] { return image_->trim(offset, length, {.fua = fua}); });
}

Result<void> ModelledImage::flush() {
  const size_t begun = fs_.mark("flush begins");
  OBD_TRY(image_->flush());
  model_.complete_flush(begun, fs_.mark("flush returned"));
  return {};
}

Result<std::vector<std::byte>> ModelledImage::read_all() {
  std::vector<std::byte> content(image_->size());
  OBD_TRY(image_->read(content, 0));
  return content;
}

}  // namespace obd::test
