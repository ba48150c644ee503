#include "tools/obd/layer_json.h"

namespace obd::tool {
namespace {

// Null for what is not compressed.
Json compression_json(const Container& container) {
  if (container.compression == Compression::none) return nullptr;
  return {{"algorithm", name_of(container.compression)},
          {"block_size", container.block_size},
          {"blocks", container.blocks},
          {"bytes", container.compressed_size},
          {"checksums", container.checksums}};
}

}  // namespace

Json layer_json(const LayerInfo& layer) {
  Json json = {{"kind", layer.kind}, {"file", layer.path}};
  if (!layer.index_path.empty()) json["index"] = layer.index_path;
  if (layer.container) {
    json["container"] = to_text(*layer.container);
    json["compression"] = compression_json(*layer.container);
  }
  json["uuid"] = layer.uuid.text();
  json["parent_uuid"] = layer.parent_uuid.is_nil() ? Json(nullptr) : Json(layer.parent_uuid.text());
  json["message"] = layer.user_tag;
  json["virtual_size"] = layer.virtual_size;
  json["extents"] = layer.extents;
  json["live_bytes"] = layer.data_bytes;
  json["zero_bytes"] = layer.zero_bytes;
  json["dead_bytes"] = layer.dead_bytes;
  json["file_bytes"] = layer.file_bytes;
  json["allocated_bytes"] = layer.allocated_bytes;
  if (!layer.index_path.empty()) {
    json["log_records"] = layer.log_records;
    json["log_dead_records"] = layer.log_dead_records;
  }
  json["warnings"] = layer.warnings;
  return json;
}

}  // namespace obd::tool
