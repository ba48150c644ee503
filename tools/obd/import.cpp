// obd import: a sealed layer with the content of a raw disk.

#include <array>
#include <memory>
#include <vector>

#include "core/format/foreign.h"
#include "core/format/zfile.h"
#include "core/layer/layer_writer.h"
#include "tools/obd/command.h"
#include "tools/obd/common.h"
#include "tools/obd/data_runs.h"
#include "tools/obd/layer_arguments.h"
#include "tools/obd/layer_json.h"
#include "tools/obd/size_text.h"

namespace obd::tool {
namespace {

struct ImportOptions {
  std::string raw;
  LayerArguments layer;
  LayerOutput output;  // what `layer` comes to
  bool json = false;
};

// A disk may begin with any bytes, but one that begins as another format's file hardly is a raw
// one.
Result<std::vector<std::string>> warnings_about(const File& raw) {
  std::array<std::byte, lsmt::kHeaderSize> start{};
  OBD_TRY_ASSIGN(const size_t got, raw.read_at(start, 0));
  const auto bytes = std::span<const std::byte>(start).first(got);
  std::string meaning;
  if (const char* format = foreign_format(bytes)) {
    meaning = fmt::format("{} (qemu-img convert -O raw makes it raw)", format);
  } else if (lsmt::has_magic(bytes) || zfile::has_magic(bytes)) {
    meaning = "a layer already";
  }
  if (meaning.empty()) return {};
  return std::vector{
      fmt::format("{}: looks like {}, and is taken for a raw disk", raw.path(), meaning)};
}

Result<int> run_import(const ImportOptions& options) {
  FileSystem& fs = posix_file_system();
  const LayerOutput& output = options.output;
  if (is_block_device(options.raw)) {
    return fail(EINVAL,
                "{}: is a block device, and import reads files: make an image of its size (obd "
                "create DIR --size), and nbdcopy {} -- [ nbdkit overlaybd DIR ] fills it",
                options.raw, shell_quoted(options.raw));
  }
  OBD_TRY(refuse_taken(fs, output.path, options.layer.force));
  LayerOptions layer = output.options;
  layer.uuid = output.uuid.value_or(Uuid::random());
  layer.parent_uuid = output.parent_uuid.value_or(Uuid());
  OBD_TRY_ASSIGN(const auto raw, fs.open(options.raw, Access::read_only));
  OBD_TRY_ASSIGN(const FileInfo raw_info, raw->info());
  OBD_TRY_ASSIGN(const bool taken, fs.exists(output.path));
  if (taken) {
    OBD_TRY_ASSIGN(const auto old, fs.open(output.path, Access::read_only));
    OBD_TRY_ASSIGN(const FileInfo old_info, old->info());
    if (old_info.device == raw_info.device && old_info.inode == raw_info.inode) {
      return fail(EINVAL, "{}: is the raw disk that is to be imported", output.path);
    }
  }
  if (raw_info.size == 0) return fail(EINVAL, "{}: is empty, so it is no disk", options.raw);
  OBD_TRY_ASSIGN(auto warnings, warnings_about(*raw));
  layer.virtual_size = Sectors::ceil(raw_info.size).bytes();
  if (layer.virtual_size > kMaxDiskSize) {
    return fail(EFBIG, "{}: is larger than a disk can be, {} bytes", options.raw, kMaxDiskSize);
  }
  OBD_TRY_ASSIGN(const auto runs, data_runs(*raw));

  {
    OBD_TRY_ASSIGN(const auto writer, LayerWriter::create(fs, output.path, layer));
    OBD_TRY(
        copy_runs(*raw, runs, "importing", [&](uint64_t offset, std::span<const std::byte> data) {
          return writer->append_data(Sectors::floor(offset), data);
        }));
    OBD_TRY(writer->finish());
    warnings.insert(warnings.end(), writer->warnings().begin(), writer->warnings().end());
  }
  OBD_TRY_ASSIGN(const auto made, SealedLayer::open(fs, output.path));
  OBD_TRY_ASSIGN(LayerInfo info, describe(*made));
  info.warnings.insert(info.warnings.end(), warnings.begin(), warnings.end());
  if (options.json) {
    const Json json = {{"source", options.raw}, {"layer", layer_json(info)}};
    fmt::print("{}\n", json_text(json, 2));
    return kExitSuccess;
  }
  for (const std::string& sentence : info.warnings) warn(sentence);
  fmt::print("created {}: {}\n", info.path, layer_summary(info));
  fmt::print("write on top of it:  obd create DIR --lower {}\n", shell_quoted(output.path));
  return kExitSuccess;
}

}  // namespace

void add_import(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<ImportOptions>();
  CLI::App* command = app.add_subcommand("import", "Makes a sealed layer from a raw disk");
  command->add_option("RAW", options->raw, "A file that holds the disk byte for byte")->required();
  add_layer_arguments(*command, options->layer, "a random one", "none");
  command->add_flag("--json", options->json, "Print JSON, sizes in bytes");
  command->footer(
      "Holes and blocks of zeros take no space. A size that is no multiple of 512 is\n"
      "rounded up.\n\n"
      "Examples:\n"
      "  obd import disk.raw -o base.lsmt\n"
      "  obd import disk.raw -o base.lsmt -m 'release 12' --force\n"
      "  obd import disk.raw -o base.zst --compress zstd:9 --block-size 64K");
  command->callback([options, &chosen] {
    options->output = or_usage_error(layer_output(options->layer));
    chosen = [options] { return run_import(*options); };
  });
}

}  // namespace obd::tool
