// obd convert: the same sealed layer, stored another way.

#include <algorithm>
#include <memory>

#include "core/zfile/blob_writer.h"
#include "core/zfile/open_blob.h"
#include "tools/obd/command.h"
#include "tools/obd/common.h"
#include "tools/obd/layer_arguments.h"
#include "tools/obd/layer_json.h"
#include "tools/obd/progress.h"
#include "tools/obd/size_text.h"

namespace obd::tool {
namespace {

constexpr uint64_t kCopySize = uint64_t{4} << 20;

struct ConvertArguments {
  std::string layer;
  std::string output;
  bool force = false;
  bool json = false;
  BlobArguments blob;
  BlobOptions options;  // what `blob` comes to
};

Result<void> copy_blob(const Blob& from, BlobWriter& to) {
  Progress progress("converting", from.size());
  std::vector<std::byte> buffer(static_cast<size_t>(std::min(kCopySize, from.size())));
  for (uint64_t offset = 0; offset < from.size();) {
    const auto piece = std::span(buffer).first(
        static_cast<size_t>(std::min<uint64_t>(kCopySize, from.size() - offset)));
    OBD_TRY(read_exactly(from, piece, offset));
    OBD_TRY(to.append(piece));
    offset += piece.size();
    OBD_TRY(progress.advance(piece.size()));
  }
  return to.finish();
}

Result<int> run_convert(const ConvertArguments& arguments) {
  FileSystem& fs = posix_file_system();
  // Checked whole, so that nothing is wrapped that will not open.
  OBD_TRY_ASSIGN(const auto layer, SealedLayer::open(fs, arguments.layer));
  ImageConfig source;
  source.path = arguments.layer;
  source.lowers = {arguments.layer};
  OBD_TRY(refuse_image_file(fs, source, arguments.output));
  OBD_TRY(refuse_taken(fs, arguments.output, arguments.force));
  {
    OBD_TRY_ASSIGN(const auto writer,
                   BlobWriter::create(fs, arguments.output, arguments.options, arguments.force));
    OBD_TRY(copy_blob(layer->blob(), *writer));
    for (const std::string& sentence : writer->warnings()) warn(sentence);
  }
  OBD_TRY_ASSIGN(const auto converted, SealedLayer::open(fs, arguments.output));
  OBD_TRY_ASSIGN(const LayerInfo info, describe(*converted));
  for (const std::string& sentence : info.warnings) warn(sentence);
  if (arguments.json) {
    const Json json = {{"source", arguments.layer}, {"layer", layer_json(info)}};
    fmt::print("{}\n", json_text(json, 2));
    return kExitSuccess;
  }
  OBD_TRY_ASSIGN(const FileInfo old_file, layer->blob().file().info());
  fmt::print("created {}: {}, {}; {} was {}, {}\n", info.path, to_text(*info.container),
             size_summary(info), arguments.layer, to_text(layer->blob().container()),
             human_size(old_file.size));
  return kExitSuccess;
}

}  // namespace

void add_convert(CLI::App& app, Runner& chosen) {
  const auto arguments = std::make_shared<ConvertArguments>();
  CLI::App* command =
      app.add_subcommand("convert", "Compresses, unpacks, wraps or unwraps a sealed layer");
  command->add_option("LAYER", arguments->layer, "A sealed layer's file")->required();
  command->add_option("-o,--output", arguments->output, "The layer to make")
      ->required()
      ->type_name("LAYER");
  command->add_flag("-f,--force", arguments->force, "Replace an existing layer");
  add_blob_arguments(*command, arguments->blob);
  command->add_flag("--json", arguments->json, "Print JSON, sizes in bytes");
  command->footer(
      "What the layer holds stays the same, byte for byte, its UUID included. Without\n"
      "--compress and --tar the result is a plain file.\n\n"
      "Examples:\n"
      "  obd convert base.lsmt -o base.zfile --compress zstd:9 --block-size 64K\n"
      "  obd convert base.lsmt -o base.tar --compress lz4 --tar    as registries want it\n"
      "  obd convert base.tar -o base.lsmt                         plain again");
  command->callback([arguments, &chosen] {
    or_usage_error(refuse_stream("--output", arguments->output));
    arguments->options = or_usage_error(blob_options(arguments->blob));
    chosen = [arguments] { return run_convert(*arguments); };
  });
}

}  // namespace obd::tool
