// obd export-oci: a container image whose layers are those of an image of ours, ready for
// `ctr images import` and for skopeo.

#include <array>
#include <cerrno>
#include <chrono>
#include <memory>
#include <vector>

#include "core/format/lsmt.h"
#include "core/format/tar.h"
#include "core/format/zfile.h"
#include "core/image/commit.h"
#include "core/zfile/blob_writer.h"
#include "tools/obd/command.h"
#include "tools/obd/common.h"
#include "tools/obd/layer_arguments.h"
#include "tools/obd/progress.h"
#include "tools/obd/size_text.h"
#include "tools/oci/oci_layout.h"
#include "tools/oci/reproducible.h"

namespace obd::tool {
namespace {

constexpr uint64_t kMaxConfigSize = uint64_t{4} << 20;
constexpr size_t kCopySize = size_t{4} << 20;

struct ExportOciOptions {
  std::string image;
  std::string output;
  std::string name;
  std::string config_from;
  bool commit = false;
  bool json = false;
  BlobArguments blob_arguments;
  BlobOptions blob;  // what they come to
};

// Where in its file a layer is stored, without the tar file around it.
Result<ByteRange> stored_range(const File& file) {
  OBD_TRY_ASSIGN(const FileInfo info, file.info());
  std::array<std::byte, tar::kMaxPrefixSize> start;
  OBD_TRY_ASSIGN(const size_t got, file.read_at(start, 0));
  const auto bytes = std::span(start).first(got);
  if (lsmt::has_magic(bytes) || zfile::has_magic(bytes) || !tar::looks_like_tar(bytes)) {
    return ByteRange{0, info.size};
  }
  return tar::find_member(bytes, info.size, file.path());
}

Result<void> compress(FileSystem& fs, const Blob& from, const std::string& path,
                      const BlobOptions& options) {
  OBD_TRY_ASSIGN(const auto writer, BlobWriter::create(fs, path, options, false));
  Progress progress("compressing", from.size());
  std::vector<std::byte> buffer(kCopySize);
  for (uint64_t offset = 0; offset < from.size();) {
    const auto piece = std::span(buffer).first(
        static_cast<size_t>(std::min<uint64_t>(buffer.size(), from.size() - offset)));
    OBD_TRY(read_exactly(from, piece, offset));
    OBD_TRY(writer->append(piece));
    OBD_TRY(progress.advance(piece.size()));
    offset += piece.size();
  }
  for (const std::string& sentence : writer->warnings()) warn(sentence);
  return writer->finish();
}

// Adds a layer as it is stored, or compressed when it is not and should be. Returns its message.
Result<std::string> add_layer(FileSystem& fs, oci::Layout& layout, const std::string& path,
                              const BlobOptions& options) {
  // Checked whole, so that nothing is exported that will not open.
  OBD_TRY_ASSIGN(const auto layer, SealedLayer::open(fs, path));
  const std::string message = layer->trailer().user_tag;
  if (options.compression == Compression::none ||
      layer->blob().container().compression != Compression::none) {
    const File& file = layer->blob().file();
    OBD_TRY_ASSIGN(const ByteRange range, stored_range(file));
    OBD_TRY(layout.add_layer(file, range, progress_lines()));
    return message;
  }
  const std::string compressed = layout.folder() + "/compressed";
  OBD_TRY(compress(fs, layer->blob(), compressed, options));
  {
    OBD_TRY_ASSIGN(const auto file, fs.open(compressed, Access::read_only));
    OBD_TRY_ASSIGN(const FileInfo info, file->info());
    OBD_TRY(layout.add_layer(*file, {0, info.size}, progress_lines()));
  }
  OBD_TRY(fs.remove(compressed));
  return message;
}

// The image's layers, and whether the upper has to become one of them.
struct Source {
  ImageConfig config;
  bool with_upper = false;
  std::string file_system;
};

Result<Source> look_at(FileSystem& fs, const ExportOciOptions& options) {
  OBD_TRY_ASSIGN(const Target target, find_target(fs, options.image));
  Source source{.config = target.config, .with_upper = false, .file_system = {}};
  OBD_TRY_ASSIGN(const auto image, open_to_look(fs, target, false));
  OBD_TRY_ASSIGN(const auto layers, image->layers());
  for (const LayerInfo& layer : layers) {
    for (const std::string& sentence : layer.warnings) warn(sentence);
  }
  if (target.config.upper && layers.back().extents != 0) {
    if (!options.commit) {
      return fail(EINVAL,
                  "{}: its upper, {}, holds changes and is still writable: seal it first, with obd "
                  "seal {}, or let --commit make a layer from what it holds now",
                  target.path, target.config.upper->data, shell_quoted(target.path));
    }
    source.with_upper = true;
  }
  if (source.config.lowers.empty() && !source.with_upper) {
    return fail(EINVAL, "{}: has no layer that holds anything", target.path);
  }
  std::vector<std::byte> start(std::min<uint64_t>(image->size(), 2048));
  OBD_TRY(image->read(start, 0));
  source.file_system = oci::file_system_in(start);
  if (source.file_system.empty()) {
    warn(fmt::format(
        "{}: its disk has no file system that is known here; a snapshotter will take it "
        "for ext4",
        target.path));
  }
  OBD_TRY(image->close());
  return source;
}

Result<oci::Json> image_config(FileSystem& fs, const std::string& path) {
  if (path.empty()) return oci::Json::object();
  OBD_TRY_ASSIGN(const std::string text, read_whole(fs, path, kMaxConfigSize));
  oci::Json json = oci::Json::parse(text, nullptr, false);
  if (json.is_discarded() || !json.is_object()) {
    return fail(EINVAL, "{}: is no OCI image config, which is a JSON object", path);
  }
  if (json.contains("layers") || json.contains("manifests")) {
    return fail(EINVAL, "{}: is a manifest or an index; name the config that it refers to", path);
  }
  for (const char* key : {"architecture", "os", "created"}) {
    if (json.contains(key) && !json[key].is_string()) {
      return fail(EINVAL, "{}: {} is no text", path, key);
    }
  }
  if (json.contains("config") && !json["config"].is_object() && !json["config"].is_null()) {
    return fail(EINVAL, "{}: config is no object", path);
  }
  return json;
}

Result<int> run_export_oci(const ExportOciOptions& options) {
  FileSystem& fs = posix_file_system();
  oci::ImageDescription description;
  if (!options.name.empty()) description.name = oci::with_tag(options.name);
  OBD_TRY_ASSIGN(const auto epoch, oci::source_date_epoch());
  description.created =
      epoch.value_or(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now()));
  OBD_TRY_ASSIGN(description.config, image_config(fs, options.config_from));
  OBD_TRY_ASSIGN(const Source source, look_at(fs, options));
  description.file_system = source.file_system;

  OBD_TRY_ASSIGN(oci::Layout layout, oci::Layout::create(fs, options.output));
  for (const std::string& lower : source.config.lowers) {
    OBD_TRY_ASSIGN(std::string message, add_layer(fs, layout, lower, options.blob));
    description.comments.push_back(printable(std::move(message)));
  }
  if (source.with_upper) {
    const std::string committed = layout.folder() + "/committed";
    LayerOutput output{.path = committed};
    if (epoch) output.uuid = oci::uuid_from_text("upper of " + source.config.path);
    OBD_TRY(commit_upper(fs, source.config, output, progress_lines()));
    OBD_TRY_ASSIGN(std::string message, add_layer(fs, layout, committed, options.blob));
    description.comments.push_back(printable(std::move(message)));
    OBD_TRY(fs.remove(committed));
  }
  const size_t layers = description.comments.size();
  OBD_TRY_ASSIGN(const oci::Descriptor manifest,
                 layout.finish(description, options.output.ends_with(".tar"), progress_lines()));
  if (options.json) {
    const Json json = {{"image", source.config.path},
                       {"output", options.output},
                       {"name", description.name.empty() ? Json(nullptr) : Json(description.name)},
                       {"manifest", manifest.digest},
                       {"layers", layers},
                       {"file_system", source.file_system}};
    fmt::print("{}\n", json_text(json, 2));
    return kExitSuccess;
  }
  fmt::print("created {}: {}, manifest {}\n", options.output, counted(layers, "layer"),
             manifest.digest);
  return kExitSuccess;
}

}  // namespace

void add_export_oci(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<ExportOciOptions>();
  CLI::App* command =
      app.add_subcommand("export-oci", "Makes a container image from the layers of an image");
  command
      ->add_option("IMAGE|LAYER", options->image,
                   "config.v1.json, the folder that holds it, or a sealed layer's file")
      ->required();
  command
      ->add_option("-o,--output", options->output,
                   "The OCI layout to make: a folder, or a tar file when it ends in .tar")
      ->required()
      ->type_name("DIR|FILE.tar");
  command->add_option("--name", options->name, "The image's name, as in localhost/app:1")
      ->type_name("REF");
  command
      ->add_option("--config-from", options->config_from,
                   "An OCI image config to take the command, environment, ... from")
      ->type_name("FILE");
  command->add_flag("--commit", options->commit,
                    "Make a layer from what the image's writable one holds, too");
  command
      ->add_option("-z,--compress", options->blob_arguments.compression,
                   "Compress the layers that are not, as in lz4, zstd or zstd:19\n"
                   "(default: none)")
      ->type_name("none|lz4|zstd[:LEVEL]");
  command
      ->add_option("--block-size", options->blob_arguments.block_size,
                   "What is compressed together, 512 to 1M (default: 4K)")
      ->type_name("SIZE");
  command
      ->add_option("--threads", options->blob_arguments.threads,
                   "How many compress at a time (default: one a processor)")
      ->check(CLI::Range(1U, 1024U).description(""))
      ->type_name("N");
  command->add_flag("--json", options->json, "Print JSON, sizes in bytes");
  command->footer(
      "Each layer becomes a tar file with overlaybd.commit in it, and the manifest has the\n"
      "annotations that overlaybd's snapshotters look for. The layers themselves are not\n"
      "changed. The output appears under its name only when it is whole. Skopeo needs\n"
      "--preserve-digests, or it compresses the layers with gzip, which no block device can\n"
      "read from.\n\n"
      "Examples:\n"
      "  obd export-oci app -o app-oci --name localhost/app:1\n"
      "  obd export-oci app -o app.tar --name localhost/app:1 --config-from config.json\n"
      "  ctr images import app.tar\n"
      "  skopeo copy --preserve-digests oci:app-oci docker://registry.example/app:1");
  command->callback([options, &chosen] {
    or_usage_error(refuse_stream("--output", options->output));
    options->blob = or_usage_error(blob_options(options->blob_arguments));
    chosen = [options] { return run_export_oci(*options); };
  });
}

}  // namespace obd::tool
