// obd import-tar: an image whose sealed layers are the layers of a container image, one each.
//
// Each tar file is applied to an ext4 that lies on the layers made so far and on a scratch upper,
// which is then committed. The config is written last, so that an image either is whole or is not
// there; a failure removes what was made.

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <optional>
#include <sstream>
#include <vector>

#include "core/image/commit.h"
#include "core/image/seal.h"
#include "tools/obd/command.h"
#include "tools/obd/common.h"
#include "tools/obd/layer_arguments.h"
#include "tools/obd/layer_json.h"
#include "tools/obd/mkfs.h"
#include "tools/obd/new_image.h"
#include "tools/obd/progress.h"
#include "tools/obd/size_text.h"
#include "tools/oci/digest.h"
#include "tools/oci/layer_applier.h"
#include "tools/oci/reproducible.h"

namespace obd::tool {
namespace {

constexpr uint64_t kDefaultSize = uint64_t{64} << 30;
// Mkfs's choice for such a disk is eight times as much, and takes that much of the host meanwhile.
constexpr uint64_t kLargeDisk = uint64_t{2} << 30;
constexpr const char* kJournalSize = "size=64";

struct ImportTarOptions {
  std::vector<std::string> tars;
  std::string directory;
  std::string size;
  std::string mkfs_options;
  std::vector<std::string> lowers;
  std::string from;
  std::string type;  // empty: no upper
  BlobArguments blob_arguments;
  bool json = false;
  // What these come to:
  uint64_t disk_size = 0;
  BlobOptions blob;
};

struct ImportedLayer {
  std::string source;
  std::string diff_id;
  oci::AppliedLayer applied;
  LayerInfo info;
};

// What is being made.
struct Work {
  FileSystem& fs;
  const ImportTarOptions& options;
  std::optional<int64_t> epoch;  // SOURCE_DATE_EPOCH
  std::string directory;
  ImageConfig config;  // its lowers: absolute paths
  NewImageFiles& made;
  std::string chain;  // what decides the next layer's content, when `epoch` does
};

Result<void> parse(ImportTarOptions& options) {
  OBD_TRY_ASSIGN(options.blob, blob_options(options.blob_arguments));
  options.disk_size = kDefaultSize;
  if (!options.size.empty()) {
    auto size = parse_disk_size(options.size);
    if (!size) return fail(size.error().code, "--size: {}", size.error().message);
    options.disk_size = *size;
  }
  return {};
}

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(std::move(word));
  return words;
}

Result<std::vector<std::string>> named_lowers(FileSystem& fs, const ImportTarOptions& options) {
  std::vector<std::string> lowers = options.lowers;
  if (!options.from.empty()) {
    OBD_TRY_ASSIGN(const Target target, find_image(fs, options.from));
    if (target.config.upper) {
      return fail(EINVAL, "{}: its upper, {}, is still writable: seal it first, with obd seal {}",
                  target.path, target.config.upper->data, shell_quoted(target.path));
    }
    lowers = target.config.lowers;
  }
  for (std::string& lower : lowers) {
    OBD_TRY_ASSIGN(lower, fs.canonical(lower));
  }
  if (lowers.size() + options.tars.size() > kMaxLowers) {
    return fail(EINVAL, "an image has at most {} lowers, and these would be {}: merge some first",
                kMaxLowers, lowers.size() + options.tars.size());
  }
  return lowers;
}

std::string layer_path(const Work& work, size_t number) {
  return path_in(work.directory, fmt::format("layer-{}.lsmt", number));
}

// The layers are numbered as the image's lowers are, so that a stack upon a stack is no puzzle.
Result<void> refuse_taken_layers(const Work& work) {
  for (size_t i = 0; i < work.options.tars.size(); ++i) {
    const std::string path = layer_path(work, work.config.lowers.size() + i);
    OBD_TRY_ASSIGN(const bool taken, work.fs.exists(path));
    if (taken) {
      return fail(EEXIST,
                  "{}: exists already: choose another folder, or remove it if a command that was "
                  "killed has left it",
                  path);
    }
  }
  return {};
}

Result<void> make_file_system(const Work& work) {
  OBD_TRY_ASSIGN(const std::string program, find_mkfs("ext4"));
  // Mkfs would choose smaller blocks for a small disk, and layers keep blocks of 4 KiB apart.
  std::vector<std::string> words = {"-b", "4096"};
  if (work.epoch) {
    const std::string uuid = oci::uuid_from_text("file system of " + work.chain).text();
    words.insert(words.end(), {"-U", uuid, "-E", "hash_seed=" + uuid});
    ::setenv("E2FSPROGS_FAKE_TIME", std::to_string(*work.epoch).c_str(), 1);
  }
  if (!work.options.mkfs_options.empty()) {
    const auto given = words_of(work.options.mkfs_options);
    words.insert(words.end(), given.begin(), given.end());
  } else if (work.options.disk_size >= kLargeDisk) {
    words.insert(words.end(), {"-J", kJournalSize});
  }
  return fill_with_file_system(work.fs, program, "ext4", work.config, words);
}

// The folder that mkfs makes is not in any tar file; e2fsck makes it when it needs one.
Result<void> remove_lost_and_found(oci::Ext4& target) {
  OBD_TRY_ASSIGN(const auto found, target.lookup(oci::Ext4::kRoot, "lost+found"));
  return found ? target.remove(oci::Ext4::kRoot, "lost+found", *found) : Result<void>();
}

Result<void> apply_tar(const Work& work, bool fresh, ImportedLayer& layer) {
  OBD_TRY_ASSIGN(const auto image, Image::open(work.fs, work.config,
                                               {.access = Access::read_write,
                                                .detect_zeroes = ZeroDetection::unmap}));
  oci::ImageDisk disk(*image);
  OBD_TRY_ASSIGN(const auto target,
                 oci::Ext4::open(disk, {.name = work.config.path, .now = work.epoch}));
  if (fresh) OBD_TRY(remove_lost_and_found(*target));
  OBD_TRY_ASSIGN(const auto stream,
                 oci::open_layer_stream(work.fs, layer.source, progress_lines()));
  oci::HashingStream hashed(*stream);
  oci::TarReader reader(hashed);
  OBD_TRY_ASSIGN(layer.applied, oci::apply_layer(*target, reader));
  layer.diff_id = hashed.digest();
  OBD_TRY(target->close());
  return image->close();
}

Result<ImportedLayer> import_layer(Work& work, const std::string& tar) {
  const bool fresh = work.config.lowers.empty();
  if (fresh && work.epoch) {
    OBD_TRY_ASSIGN(const auto file, work.fs.open(tar, Access::read_only));
    OBD_TRY_ASSIGN(work.chain, oci::digest_of(*file, progress_lines()));
  }
  NewImageFiles scratch(work.fs);
  NewLayer upper;
  upper.uuid = Uuid::random();
  upper.virtual_size = fresh ? work.options.disk_size : 0;
  OBD_TRY(create_writable_layer(work.fs, work.config.upper->data, work.config.upper->index, upper));
  scratch.made_file(work.config.upper->index);
  scratch.made_file(work.config.upper->data);
  if (fresh) OBD_TRY(make_file_system(work));

  ImportedLayer layer{.source = tar, .diff_id = {}, .applied = {}, .info = {}};
  OBD_TRY(apply_tar(work, fresh, layer));
  work.chain += layer.diff_id;
  LayerOutput output{.path = layer_path(work, work.config.lowers.size())};
  output.options.blob = work.options.blob;
  output.options.user_tag = layer.diff_id;
  if (work.epoch) output.uuid = oci::uuid_from_text(work.chain);
  OBD_TRY_ASSIGN(layer.info, commit_upper(work.fs, work.config, output, progress_lines()));
  work.made.made_file(output.path);
  work.config.lowers.push_back(output.path);
  return layer;
}

// The image's own layers are named within its folder, so that it can be moved.
Result<void> save_image(Work& work, const std::vector<ImportedLayer>& layers) {
  ImageConfig config = work.config;
  config.upper.reset();
  if (!work.options.type.empty()) {
    NewLayer upper;
    upper.kind = work.options.type == "sparse" ? UpperKind::sparse : UpperKind::append;
    upper.virtual_size = layers.back().info.virtual_size;
    upper.parent_uuid = layers.back().info.uuid;
    upper.uuid = Uuid::random();
    OBD_TRY(
        create_writable_layer(work.fs, work.config.upper->data, work.config.upper->index, upper));
    work.made.made_file(work.config.upper->index);
    work.made.made_file(work.config.upper->data);
    config.upper = UpperConfig{std::string(kUpperDataName), std::string(kUpperIndexName)};
  }
  for (std::string& lower : config.lowers) {
    OBD_TRY_ASSIGN(lower, name_in_config(work.fs, lower, config.path));
  }
  work.made.made_file(config.path);
  OBD_TRY(save_config(work.fs, config));
  return work.fs.sync_directory(directory_of(work.directory));
}

void print_json(const Work& work, const std::vector<ImportedLayer>& layers) {
  Json json = {{"image", work.config.path},
               {"virtual_size", layers.back().info.virtual_size},
               {"upper", work.options.type.empty() ? Json(nullptr) : Json(work.options.type)},
               {"lowers", work.config.lowers.size()}};
  json["layers"] = Json::array();
  for (const ImportedLayer& layer : layers) {
    json["layers"].push_back({{"source", layer.source},
                              {"diff_id", layer.diff_id},
                              {"entries", layer.applied.entries},
                              {"whiteouts", layer.applied.whiteouts},
                              {"bytes", layer.applied.bytes},
                              {"warnings", layer.applied.warnings},
                              {"layer", layer_json(layer.info)}});
  }
  fmt::print("{}\n", json_text(json, 2));
}

void print_human(const Work& work, const std::vector<ImportedLayer>& layers) {
  for (const ImportedLayer& layer : layers) {
    for (const std::string& sentence : layer.applied.warnings) warn(sentence);
    for (const std::string& sentence : layer.info.warnings) warn(sentence);
    fmt::print(
        "{}: {}, {} of content; {}\n", layer.source,
        layer.applied.entries == 1 ? "1 entry" : fmt::format("{} entries", layer.applied.entries),
        human_size(layer.applied.bytes), size_summary(layer.info));
  }
  fmt::print("created {}: disk of {}, {}, {}\n", work.config.path,
             human_size(layers.back().info.virtual_size),
             counted(work.config.lowers.size(), "lower"),
             work.options.type.empty() ? "no upper" : work.options.type + " upper");
  if (work.options.type.empty()) {
    fmt::print("write on top of it:  obd create DIR --from {}\n", shell_quoted(work.config.path));
  } else {
    fmt::print("serve it:  nbdkit overlaybd {}\n", shell_quoted(work.config.path));
  }
}

Result<int> run_import_tar(const ImportTarOptions& options) {
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(const auto epoch, oci::source_date_epoch());
  // Refused before anything is made.
  for (const std::string& tar : options.tars) OBD_TRY(fs.open(tar, Access::read_only));
  OBD_TRY_ASSIGN(auto lowers, named_lowers(fs, options));
  if (!lowers.empty() && (!options.size.empty() || !options.mkfs_options.empty())) {
    return fail(EINVAL, "{}: is for a new file system, and the lowers have one",
                options.size.empty() ? "--mkfs-options" : "--size");
  }
  NewImageFiles made(fs);
  OBD_TRY_ASSIGN(const std::string directory, prepare_directory(fs, options.directory, made));
  Work work{.fs = fs,
            .options = options,
            .epoch = epoch,
            .directory = directory,
            .config = {},
            .made = made,
            .chain = {}};
  work.config.path = path_in(directory, kConfigName);
  work.config.lowers = std::move(lowers);
  work.config.upper =
      UpperConfig{path_in(directory, kUpperDataName), path_in(directory, kUpperIndexName)};
  OBD_TRY(refuse_taken_layers(work));
  if (!work.config.lowers.empty()) {
    OBD_TRY_ASSIGN(const auto top, SealedLayer::open(fs, work.config.lowers.back()));
    work.chain = top->trailer().uuid.text();
  }

  std::vector<ImportedLayer> layers;
  for (const std::string& tar : options.tars) {
    OBD_TRY_ASSIGN(ImportedLayer layer, import_layer(work, tar));
    layers.push_back(std::move(layer));
  }
  OBD_TRY(save_image(work, layers));
  made.keep();
  if (options.json) {
    print_json(work, layers);
  } else {
    print_human(work, layers);
  }
  return kExitSuccess;
}

}  // namespace

void add_import_tar(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<ImportTarOptions>();
  CLI::App* command =
      app.add_subcommand("import-tar", "Makes an image from the layers of a container image");
  command
      ->add_option("LAYER.tar", options->tars,
                   "The layers, bottom first: tar files, also compressed with gzip or zstd")
      ->required();
  command
      ->add_option("-o,--output", options->directory,
                   "The image's folder; made when it does not exist")
      ->required()
      ->type_name("DIR");
  command->add_option("-s,--size", options->size, "Size of the disk (default: 64G)");
  command
      ->add_option("--mkfs-options", options->mkfs_options,
                   "More options for mkfs.ext4, as in '-O ^has_journal -m 0'")
      ->type_name("WORDS");
  CLI::Option* lower = command
                           ->add_option("-l,--lower", options->lowers,
                                        "Sealed layers to stack upon, bottom first, with an ext4")
                           ->type_name("FILE");
  command->add_option("--from", options->from, "Stack upon the lowers of a sealed image")
      ->type_name("IMAGE")
      ->excludes(lower);
  command
      ->add_option("-t,--type", options->type,
                   "Also make a writable layer, empty, of this type (default: none)")
      ->check(CLI::IsMember({"append", "sparse"}).description(""))
      ->type_name("append|sparse");
  add_blob_arguments(*command, options->blob_arguments);
  command->add_flag("--json", options->json, "Print JSON, sizes in bytes");
  command->footer(
      "Makes layer-N.lsmt for each tar file, and config.v1.json, in DIR. Needs no root and\n"
      "mounts nothing. Owners, modes, times, links, devices, extended attributes, ACLs and\n"
      "holes are kept; whiteouts remove what the layers below have. With SOURCE_DATE_EPOCH\n"
      "in the environment, the same tar files give the same layers.\n\n"
      "Examples:\n"
      "  obd import-tar base.tar app.tar.gz -o app\n"
      "  obd import-tar rootfs.tar -o vm --size 10G --type append\n"
      "  obd import-tar more.tar --from app -o next --compress zstd --tar");
  command->callback([options, &chosen] {
    or_usage_error(parse(*options));
    chosen = [options] { return run_import_tar(*options); };
  });
}

}  // namespace obd::tool
