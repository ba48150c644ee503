// obd import: a sealed layer with the content of a raw disk.

#include <array>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

#include "core/layer/layer_writer.h"
#include "tools/obd/command.h"
#include "tools/obd/common.h"
#include "tools/obd/data_runs.h"
#include "tools/obd/layer_arguments.h"
#include "tools/obd/size_text.h"

namespace obd::tool {
namespace {

struct ImportOptions {
  std::string raw;
  LayerArguments layer;
};

// A disk may begin with any bytes, but one that begins as another format's file hardly is a raw
// one.
Result<void> warn_of_other_format(const File& raw) {
  constexpr std::pair<std::string_view, const char*> kFormats[] = {
      {std::string_view("QFI\xfb", 4), "a qcow2 image (qemu-img convert makes it raw)"},
      {std::string_view("KDMV", 4), "a VMDK image (qemu-img convert makes it raw)"},
      {std::string_view("vhdxfile", 8), "a VHDX image (qemu-img convert makes it raw)"},
      {std::string_view("ZFile\0\1\0", 8), "a layer already"},
      {std::string_view("LSMT\0\1\2\0", 8), "a layer already"},
  };
  std::array<std::byte, 8> start{};
  OBD_TRY_ASSIGN(const size_t got, raw.read_at(start, 0));
  for (const auto& [magic, meaning] : kFormats) {
    if (got == start.size() && std::memcmp(start.data(), magic.data(), magic.size()) == 0) {
      warn(fmt::format("{}: looks like {}, and is taken for a raw disk", raw.path(), meaning));
    }
  }
  return {};
}

Result<int> run_import(const ImportOptions& options) {
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(const LayerOutput output, layer_output(fs, options.layer));
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
  OBD_TRY(warn_of_other_format(*raw));
  layer.virtual_size = Sectors::ceil(raw_info.size).bytes();
  if (layer.virtual_size > kMaxDiskSize) {
    return fail(EFBIG, "{}: is larger than a disk can be, {} bytes", options.raw, kMaxDiskSize);
  }
  OBD_TRY_ASSIGN(const auto runs, data_runs(*raw));

  OBD_TRY_ASSIGN(const auto writer, LayerWriter::create(fs, output.path, layer));
  uint64_t written = 0;
  OBD_TRY(copy_runs(*raw, runs, "importing", [&](uint64_t offset, std::span<const std::byte> data) {
    written += data.size();
    return writer->append_data(Sectors::floor(offset), data);
  }));
  OBD_TRY(writer->finish());
  for (const std::string& sentence : writer->warnings()) warn(sentence);
  fmt::print("created {}: disk of {}, {} of data\n", output.path, human_size(layer.virtual_size),
             human_size(written));
  fmt::print("write on top of it:  obd create DIR --lower {}\n", shell_quoted(output.path));
  return kExitSuccess;
}

}  // namespace

void add_import(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<ImportOptions>();
  CLI::App* command = app.add_subcommand("import", "Makes a sealed layer from a raw disk");
  command->add_option("RAW", options->raw, "A file that holds the disk byte for byte")->required();
  add_layer_arguments(*command, options->layer, "a random one", "none");
  command->footer(
      "Holes and blocks of zeros take no space. A size that is no multiple of 512 is\n"
      "rounded up.\n\n"
      "Examples:\n"
      "  obd import disk.raw -o base.lsmt\n"
      "  obd import disk.raw -o base.lsmt -m 'release 12' --force\n"
      "  obd import disk.raw -o base.zst --compress zstd:9 --block-size 64K");
  command->callback([options, &chosen] { chosen = [options] { return run_import(*options); }; });
}

}  // namespace obd::tool
