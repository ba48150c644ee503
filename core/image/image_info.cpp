// What an image tells about itself.

#include "core/image/image.h"
#include "core/image/image_counters.h"

namespace obd {
namespace {

Result<void> add_file_sizes(const File& file, LayerInfo& info) {
  OBD_TRY_ASSIGN(const FileInfo stat, file.info());
  info.file_bytes = stat.size;
  info.allocated_bytes = stat.allocated;
  return {};
}

void add_header(const lsmt::Header& header, LayerInfo& info) {
  info.uuid = header.uuid;
  info.parent_uuid = header.parent_uuid;
  info.user_tag = header.user_tag;
  info.virtual_size = header.virtual_size;
}

}  // namespace

Result<LayerInfo> describe(const SealedLayer& layer) {
  LayerInfo info;
  info.path = layer.path();
  info.kind = "sealed";
  add_header(layer.trailer(), info);
  info.extents = layer.extent_count();
  info.data_bytes = layer.data_sectors().bytes();
  info.zero_bytes = layer.zero_sectors().bytes();
  // The data area of a layer that was sealed from a sparse one is its whole disk, mostly holes.
  if (!layer.trailer().is_sparse()) {
    const uint64_t area = layer.trailer().index_offset - lsmt::kHeaderSize;
    info.dead_bytes = area - std::min(area, info.data_bytes);
  }
  info.warnings = layer.warnings();
  info.container = layer.blob().container();
  OBD_TRY(add_file_sizes(layer.blob().file(), info));
  return info;
}

Result<LayerInfo> describe(const WritableLayer& layer) {
  LayerInfo info;
  info.path = layer.data_file().path();
  info.index_path = layer.index_path();
  info.kind = layer.kind() == UpperKind::append ? "append" : "sparse";
  add_header(layer.header(), info);
  const WritableLayer::Stats stats = layer.stats();
  info.extents = stats.extents;
  info.data_bytes = stats.data.bytes();
  info.zero_bytes = stats.zero.bytes();
  info.dead_bytes = stats.dead_bytes;
  info.log_records = stats.log_records;
  info.log_dead_records = stats.log_dead_records;
  info.warnings = layer.warnings();
  OBD_TRY(add_file_sizes(layer.data_file(), info));
  return info;
}

uint64_t size_of_lowers(const std::vector<LayerInfo>& lowers) {
  uint64_t size = 0;
  for (const LayerInfo& lower : lowers) {
    if (lower.virtual_size != 0) size = lower.virtual_size;
  }
  return size;
}

Result<std::vector<LayerInfo>> Image::layers() const {
  std::vector<LayerInfo> infos;
  for (const auto& lower : lowers_) {
    OBD_TRY_ASSIGN(LayerInfo info, describe(*lower));
    infos.push_back(std::move(info));
  }
  if (upper_) {
    OBD_TRY_ASSIGN(LayerInfo info, describe(*upper_));
    infos.push_back(std::move(info));
  }
  return infos;
}

ImageStats Image::stats() const {
  ImageStats stats;
  stats.reads = counters_->reads;
  stats.read_bytes = counters_->read_bytes;
  stats.writes = counters_->writes;
  stats.write_bytes = counters_->write_bytes;
  stats.zeroes = counters_->zeroes;
  stats.zero_bytes = counters_->zero_bytes;
  stats.flushes = counters_->flushes;
  if (upper_) {
    const WritableLayer::Stats upper = upper_->stats();
    stats.syncs = upper.syncs;
    stats.failed_punches = upper.failed_punches;
    stats.punched_bytes = upper.punched_bytes;
    stats.moved_bytes = upper.moved_bytes;
    stats.log_checkpoints = upper.checkpoints;
  }
  return stats;
}

}  // namespace obd
