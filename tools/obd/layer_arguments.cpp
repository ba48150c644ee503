#include "tools/obd/layer_arguments.h"

#include <bit>
#include <cerrno>
#include <charconv>
#include <string_view>

#include "core/zfile/codec.h"
#include "tools/obd/common.h"
#include "tools/obd/size_text.h"

namespace obd::tool {

void add_blob_arguments(CLI::App& command, BlobArguments& arguments) {
  command
      .add_option("-z,--compress", arguments.compression,
                  "Compress it, as in lz4, zstd or zstd:19 (default: none)")
      ->type_name("none|lz4|zstd[:LEVEL]");
  command
      .add_option("--block-size", arguments.block_size,
                  "What is compressed together, 512 to 1M (default: 4K); the larger,\n"
                  "the smaller the layer and the slower its random reads")
      ->type_name("SIZE");
  command.add_flag("--tar", arguments.tar, "Wrap it in a tar file, as layers in registries are");
  command
      .add_option("--threads", arguments.threads,
                  "How many compress at a time (default: one a processor)")
      ->check(CLI::Range(1U, 1024U).description(""))
      ->type_name("N");
}

Result<BlobOptions> blob_options(const BlobArguments& arguments) {
  BlobOptions options;
  options.tar = arguments.tar;
  options.threads = arguments.threads;
  const size_t colon = arguments.compression.find(':');
  const std::string_view name = std::string_view(arguments.compression).substr(0, colon);
  bool known = false;
  for (const Compression compression : {Compression::none, Compression::lz4, Compression::zstd}) {
    if (name == name_of(compression)) {
      options.compression = compression;
      known = true;
    }
  }
  if (!known) {
    return fail(EINVAL, "--compress: '{}' is not one of none, lz4, zstd", arguments.compression);
  }
  if (options.compression == Compression::none &&
      (colon != std::string::npos || !arguments.block_size.empty())) {
    return fail(EINVAL, "{}: means nothing without --compress lz4 or zstd",
                colon != std::string::npos ? "--compress " + arguments.compression
                                           : "--block-size " + arguments.block_size);
  }
  if (colon != std::string::npos) {
    const std::string_view digits = std::string_view(arguments.compression).substr(colon + 1);
    const int most = max_level(options.compression);
    const auto [end, code] =
        std::from_chars(digits.data(), digits.data() + digits.size(), options.level);
    if (code != std::errc() || end != digits.data() + digits.size() || options.level < 1 ||
        options.level > most) {
      return fail(EINVAL, "--compress: '{}' is no level of {}, which has 1 to {}", digits, name,
                  most);
    }
  }
  if (!arguments.block_size.empty()) {
    auto size = parse_size(arguments.block_size);
    if (!size) return fail(size.error().code, "--block-size: {}", size.error().message);
    if (*size < zfile::kMinBlockSize || *size > zfile::kMaxBlockSize ||
        !std::has_single_bit(*size)) {
      return fail(EINVAL, "--block-size: {} is not a power of two from {} to {}",
                  arguments.block_size, zfile::kMinBlockSize, zfile::kMaxBlockSize);
    }
    options.block_size = static_cast<uint32_t>(*size);
  }
  return options;
}

void add_layer_arguments(CLI::App& command, LayerArguments& arguments,
                         const std::string& default_uuid, const std::string& default_parent) {
  command.add_option("-o,--output", arguments.path, "The layer to make")
      ->required()
      ->type_name("LAYER");
  command.add_option("--uuid", arguments.uuid,
                     fmt::format("The layer's UUID (default: {})", default_uuid));
  command.add_option("--parent-uuid", arguments.parent_uuid,
                     fmt::format("UUID of the layer below it (default: {})", default_parent));
  command.add_option("-m,--message", arguments.message, "Text to keep in the layer");
  command.add_flag("-f,--force", arguments.force, "Replace an existing layer");
  add_blob_arguments(command, arguments.blob);
}

Result<LayerOutput> layer_output(const LayerArguments& arguments) {
  OBD_TRY(refuse_stream("--output", arguments.path));
  if (arguments.message.size() > lsmt::kMaxTagSize) {
    return fail(EINVAL, "--message: has {} bytes, and a layer has room for {}",
                arguments.message.size(), lsmt::kMaxTagSize);
  }
  LayerOutput output{.path = arguments.path};
  output.options.user_tag = arguments.message;
  output.options.overwrite = arguments.force;
  OBD_TRY_ASSIGN(output.options.blob, blob_options(arguments.blob));
  if (!arguments.uuid.empty()) {
    OBD_TRY_ASSIGN(output.uuid, parse_uuid_option("--uuid", arguments.uuid, Uuid()));
  }
  if (!arguments.parent_uuid.empty()) {
    OBD_TRY_ASSIGN(output.parent_uuid,
                   parse_uuid_option("--parent-uuid", arguments.parent_uuid, Uuid()));
  }
  return output;
}

std::string layer_summary(const LayerInfo& layer) {
  std::string text = fmt::format("disk of {}, {} of data", human_size(layer.virtual_size),
                                 human_size(layer.data_bytes));
  if (layer.zero_bytes != 0) text += fmt::format(", {} of zeros", human_size(layer.zero_bytes));
  return text + "; " + size_summary(layer);
}

std::string size_summary(const LayerInfo& layer) {
  std::string text = "wrote " + human_size(layer.file_bytes);
  if (layer.container && layer.container->compression != Compression::none) {
    text += fmt::format(", compressed to {:.1f} %",
                        100.0 * static_cast<double>(layer.container->compressed_size) /
                            static_cast<double>(layer.container->content_size));
  }
  return text;
}

}  // namespace obd::tool
