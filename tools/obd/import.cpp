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
#include "tools/obd/size_text.h"

namespace obd::tool {
namespace {

struct ImportOptions {
  std::string raw;
  std::string layer;
  std::string uuid;
  std::string parent_uuid;
  std::string message;
  bool force = false;
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
  LayerOptions layer;
  layer.user_tag = options.message;
  layer.overwrite = options.force;
  OBD_TRY_ASSIGN(layer.uuid, parse_uuid_option("--uuid", options.uuid, Uuid::random()));
  OBD_TRY_ASSIGN(layer.parent_uuid,
                 parse_uuid_option("--parent-uuid", options.parent_uuid, Uuid()));
  if (layer.user_tag.size() > lsmt::kMaxTagSize) {
    return fail(EINVAL, "--message: has {} bytes, and a layer has room for {}",
                layer.user_tag.size(), lsmt::kMaxTagSize);
  }

  OBD_TRY(refuse_taken(fs, options.layer, options.force));
  OBD_TRY_ASSIGN(const auto raw, fs.open(options.raw, Access::read_only));
  OBD_TRY_ASSIGN(const FileInfo raw_info, raw->info());
  OBD_TRY_ASSIGN(const bool taken, fs.exists(options.layer));
  if (taken) {
    OBD_TRY_ASSIGN(const auto old, fs.open(options.layer, Access::read_only));
    OBD_TRY_ASSIGN(const FileInfo old_info, old->info());
    if (old_info.device == raw_info.device && old_info.inode == raw_info.inode) {
      return fail(EINVAL, "{}: is the raw disk that is to be imported", options.layer);
    }
  }
  if (raw_info.size == 0) return fail(EINVAL, "{}: is empty, so it is no disk", options.raw);
  OBD_TRY(warn_of_other_format(*raw));
  layer.virtual_size = Sectors::ceil(raw_info.size).bytes();
  if (layer.virtual_size > kMaxDiskSize) {
    return fail(EFBIG, "{}: is larger than a disk can be, {} bytes", options.raw, kMaxDiskSize);
  }
  OBD_TRY_ASSIGN(const auto runs, data_runs(*raw));

  OBD_TRY_ASSIGN(const auto writer, LayerWriter::create(fs, options.layer, layer));
  uint64_t written = 0;
  OBD_TRY(copy_runs(*raw, runs, "importing", [&](uint64_t offset, std::span<const std::byte> data) {
    written += data.size();
    return writer->append_data(Sectors::floor(offset), data);
  }));
  OBD_TRY(writer->finish());
  fmt::print("created {}: disk of {}, {} of data\n", options.layer, human_size(layer.virtual_size),
             human_size(written));
  fmt::print("write on top of it:  obd create DIR --lower {}\n", shell_quoted(options.layer));
  return kExitSuccess;
}

}  // namespace

void add_import(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<ImportOptions>();
  CLI::App* command = app.add_subcommand("import", "Makes a sealed layer from a raw disk");
  command->add_option("RAW", options->raw, "A file that holds the disk byte for byte")->required();
  command->add_option("-o,--output", options->layer, "The layer to make")->required();
  command->add_option("--uuid", options->uuid, "The layer's UUID (default: a random one)");
  command->add_option("--parent-uuid", options->parent_uuid,
                      "UUID of the layer below it (default: none)");
  command->add_option("-m,--message", options->message, "Text to keep in the layer");
  command->add_flag("-f,--force", options->force, "Replace an existing layer");
  command->footer(
      "Holes and blocks of zeros take no space. A size that is no multiple of 512 is\n"
      "rounded up.\n\n"
      "Examples:\n"
      "  obd import disk.raw -o base.lsmt\n"
      "  obd import disk.raw -o base.lsmt -m 'release 12' --force");
  command->callback([options, &chosen] { chosen = [options] { return run_import(*options); }; });
}

}  // namespace obd::tool
