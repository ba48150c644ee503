// overlaybd-apply: applies the tar file of an OCI layer to the ext4 on an image's upper.
//
// The changes are tried on a scratch disk and then made as one step (core/image/update.h): a layer
// that cannot be applied, or a host that has no more room, leaves the image as it was. The image is
// open for writing, which keeps everybody else out, from the start until the end.

#include <fmt/format.h>

#include <cerrno>
#include <string_view>

#include "core/image/update.h"
#include "core/io/output_file.h"
#include "tools/compat/compat.h"
#include "tools/obd/common.h"
#include "tools/obd/mkfs.h"
#include "tools/obd/progress.h"
#include "tools/oci/digest.h"
#include "tools/oci/layer_applier.h"
#include "tools/oci/reproducible.h"
#include "tools/oci/scratch_disk.h"

namespace obd::compat {
namespace {

struct ApplyArguments {
  std::string tar;
  std::string image;
  std::string checksum;
  std::string fstype = "ext4";
  bool raw = false;
  bool mkfs = false;
};

// "sha256:..." or the digits alone.
Result<void> compare_checksum(const ApplyArguments& arguments, const std::string& digest) {
  if (arguments.checksum.empty()) return {};
  constexpr std::string_view kAlgorithm = "sha256:";
  const std::string wanted = arguments.checksum.starts_with(kAlgorithm)
                                 ? arguments.checksum
                                 : std::string(kAlgorithm) + arguments.checksum;
  if (wanted == digest) return {};
  return fail(EBADMSG,
              "{}: its uncompressed content has the checksum {}, not {}: nothing has been "
              "changed",
              arguments.tar, digest, wanted);
}

Result<void> apply_to(FileSystem& fs, const ApplyArguments& arguments, oci::Disk& disk) {
  OBD_TRY_ASSIGN(const auto epoch, oci::source_date_epoch());
  OBD_TRY_ASSIGN(const auto target, oci::Ext4::open(disk, {.name = arguments.image, .now = epoch}));
  OBD_TRY_ASSIGN(const auto stream,
                 oci::open_layer_stream(fs, arguments.tar, tool::progress_lines()));
  oci::HashingStream hashed(*stream);
  oci::TarReader reader(hashed);
  OBD_TRY_ASSIGN(const oci::AppliedLayer applied, oci::apply_layer(*target, reader));
  OBD_TRY(compare_checksum(arguments, hashed.digest()));
  OBD_TRY(target->close());
  for (const std::string& sentence : applied.warnings) tool::warn(sentence);
  return {};
}

// A new file system takes the place of whatever a disk holds only when that is nothing.
Result<void> make_file_system(FileSystem& fs, const ImageConfig& config) {
  {
    OBD_TRY_ASSIGN(const auto image, Image::open(fs, config, {.access = Access::read_only}));
    bool empty = true;
    OBD_TRY(image->extents(0, image->size(), [&](const ImageExtent& extent) {
      empty = extent.kind != ExtentKind::data;
      return empty;
    }));
    if (!empty) {
      return fail(EINVAL, "{}: --mkfs is for an empty disk, and this one holds data", config.path);
    }
  }
  OBD_TRY_ASSIGN(const std::string program, tool::find_mkfs("ext4"));
  return tool::fill_with_file_system(fs, program, "ext4", config);
}

Result<void> apply_to_image(FileSystem& fs, const ApplyArguments& arguments) {
  OBD_TRY_ASSIGN(const ImageConfig config, load_config(fs, arguments.image));
  if (!config.upper) {
    return fail(EINVAL, "{}: the image has no upper, and sealed layers are never changed",
                config.path);
  }
  if (arguments.mkfs) OBD_TRY(make_file_system(fs, config));
  OBD_TRY_ASSIGN(const ImageForUpdate opened, open_for_update(fs, config));
  if (opened.finished_earlier) {
    tool::warn("finished what an interrupted command had begun to change");
  }
  Image& image = *opened.image;
  bool changes = false;
  {
    // Never finished, so it goes away with this block, before the update needs the space.
    OBD_TRY_ASSIGN(auto scratch, OutputFile::create(fs, config.upper->data, 0600, true));
    OBD_TRY(scratch.file().truncate(image.size()));
    oci::ScratchDisk disk(image, scratch.file());
    OBD_TRY(apply_to(fs, arguments, disk));
    OBD_TRY_ASSIGN(changes, write_update(fs, image, disk, image.size(), tool::progress_lines()));
  }
  if (changes) OBD_TRY(apply_update(fs, image));
  return image.close();
}

Result<void> apply_to_raw(FileSystem& fs, const ApplyArguments& arguments) {
  if (arguments.mkfs) {
    OBD_TRY_ASSIGN(const std::string program, tool::find_mkfs("ext4"));
    OBD_TRY(tool::run_mkfs(program, "ext4", arguments.image));
  }
  OBD_TRY_ASSIGN(const auto file, fs.open(arguments.image, Access::read_write));
  OBD_TRY(file->lock(LockMode::exclusive));
  OBD_TRY_ASSIGN(const FileInfo info, file->info());
  oci::FileDisk disk(*file, info.size);
  return apply_to(fs, arguments, disk);
}

Result<int> apply(const ApplyArguments& arguments) {
  FileSystem& fs = posix_file_system();
  if (arguments.fstype != "ext4") {
    return fail(
        ENOTSUP,
        "--fstype {}: layers are applied to ext4 alone; mount another file system and unpack "
        "the layer into it",
        arguments.fstype);
  }
  OBD_TRY(arguments.raw ? apply_to_raw(fs, arguments) : apply_to_image(fs, arguments));
  // Where overlaybd's command says it.
  fmt::print(stderr, "overlaybd-apply done\n");
  return 0;
}

int main(int argc, char** argv) {
  CLI::App app("Applies the tar file of an OCI layer to an image", "overlaybd-apply");
  ApplyArguments arguments;
  std::string service_config;
  app.add_flag("--raw", arguments.raw,
               "image_config_path is a plain disk; what fails leaves it half changed");
  app.add_flag("--mkfs", arguments.mkfs, "Put an ext4 on the disk first, which is empty");
  app.add_option("--fstype", arguments.fstype, "ext4 (the default) is all there is");
  app.add_option("--checksum", arguments.checksum,
                 "The SHA-256 that the layer has to have, uncompressed");
  app.add_option("--service_config_path", service_config, "Accepted; there is no service");
  add_refused(app, "--gz_index_path", "turboOCI layers are not supported");
  add_refused_flag(app, "--import", "turboOCI layers are not supported");
  add_refused_flag(app, "--export", "turboOCI layers are not supported");
  add_refused_flag(app, "--from_qcow2", "use qemu-img convert, and obd import");
  add_verbose(app);
  app.add_option("input_path", arguments.tar,
                 "The layer: a tar file, also compressed with gzip or zstd")
      ->required();
  app.add_option("image_config_path", arguments.image, "The image's config.v1.json")->required();
  app.footer(
      "No server may have the image open. When it was interrupted, run it again.\n\n"
      "Example:\n"
      "  overlaybd-apply layer.tar config.v1.json");
  return run(app, argc, argv, kFailure, [&] { return apply(arguments); });
}

}  // namespace
}  // namespace obd::compat

int main(int argc, char** argv) { return obd::compat::main(argc, argv); }
