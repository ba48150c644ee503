// obd create: a folder with a new image: its config and its writable layer.
//
// Everything that can be refused is refused before anything is made; after that, a failure removes
// what was made. The config is written last, so that an image either is whole or is not there.

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "core/io/output_file.h"
#include "core/layer/sealed_layer.h"
#include "core/layer/writable_layer.h"
#include "tools/obd/command.h"
#include "tools/obd/common.h"
#include "tools/obd/data_runs.h"
#include "tools/obd/mkfs.h"
#include "tools/obd/size_text.h"

namespace obd::tool {
namespace {

constexpr std::string_view kDataName = "writable_data";
constexpr std::string_view kIndexName = "writable_index";

struct CreateOptions {
  std::string directory;
  std::string type = "append";
  std::string size;
  std::vector<std::string> lowers;
  std::string from;
  std::string mkfs;
  std::string uuid;
  std::string parent_uuid;
};

// What the options come to.
struct Plan {
  std::vector<std::string> lowers;  // canonical paths, bottom first
  NewLayer layer;
  std::string mkfs_program;  // empty: none
};

// Removes what a failed create has made.
class NewImageFiles {
 public:
  explicit NewImageFiles(FileSystem& fs) : fs_(fs) {}
  ~NewImageFiles() {
    if (kept_) return;
    // The error that led here is being told; what cannot be removed stays.
    for (const std::string& file : files_) static_cast<void>(fs_.remove(file));
    std::error_code ignored;
    if (!directory_.empty()) std::filesystem::remove(directory_, ignored);
  }
  NewImageFiles(const NewImageFiles&) = delete;
  NewImageFiles& operator=(const NewImageFiles&) = delete;

  void made_directory(std::string path) { directory_ = std::move(path); }
  void made_file(std::string path) { files_.push_back(std::move(path)); }
  void keep() { kept_ = true; }

 private:
  FileSystem& fs_;
  std::vector<std::string> files_;
  std::string directory_;  // empty: it was there before
  bool kept_ = false;
};

std::string join(const std::string& directory, std::string_view name) {
  return (std::filesystem::path(directory) / name).string();
}

Result<std::vector<std::string>> named_lowers(FileSystem& fs, const CreateOptions& options) {
  if (options.from.empty()) return options.lowers;
  OBD_TRY_ASSIGN(const Target target, find_image(fs, options.from));
  if (target.config.upper) {
    return fail(EINVAL, "{}: its upper, {}, is still writable: seal it first, with obd seal {}",
                target.path, target.config.upper->data, shell_quoted(target.path));
  }
  return target.config.lowers;
}

// Opens every lower, and takes from them what was not said about the new layer.
Result<void> plan_lowers(FileSystem& fs, const CreateOptions& options, Plan& plan) {
  OBD_TRY_ASSIGN(const auto named, named_lowers(fs, options));
  if (named.size() > kMaxLowers) {
    return fail(EINVAL, "an image has at most {} lowers, and these are {}: merge some first",
                kMaxLowers, named.size());
  }
  for (const std::string& name : named) {
    OBD_TRY_ASSIGN(std::string path, fs.canonical(name));
    OBD_TRY_ASSIGN(const auto layer, SealedLayer::open(fs, path));
    for (const std::string& sentence : layer->warnings()) warn(sentence);
    // The topmost layer that has a size gives it, even where that is less than one below.
    const uint64_t size = layer->trailer().virtual_size;
    if (size != 0) plan.layer.virtual_size = size;
    plan.layer.parent_uuid = layer->trailer().uuid;
    plan.lowers.push_back(std::move(path));
  }
  return {};
}

Result<void> plan_size(const CreateOptions& options, Plan& plan) {
  const uint64_t size_of_lowers = plan.layer.virtual_size;
  if (options.size.empty()) {
    if (size_of_lowers != 0) return {};
    return fail(EINVAL, "--size: is needed, as there is no lower that has a size");
  }
  Result<uint64_t> size = parse_disk_size(options.size);
  if (!size) return fail(size.error().code, "--size: {}", size.error().message);
  plan.layer.virtual_size = *size;
  if (*size < size_of_lowers) {
    warn(fmt::format("the disk is smaller than its lowers: what they hold past {} is cut off",
                     exact_size(*size)));
  }
  if (*size > lsmt::kAddressableEnd.bytes()) {
    warn("writes past 512 PiB will be refused: the format has no addresses for them");
  }
  return {};
}

Result<Plan> make_plan(FileSystem& fs, const CreateOptions& options) {
  Plan plan;
  plan.layer.kind = options.type == "sparse" ? UpperKind::sparse : UpperKind::append;
  plan.layer.virtual_size = 0;
  OBD_TRY(plan_lowers(fs, options, plan));
  OBD_TRY(plan_size(options, plan));
  OBD_TRY_ASSIGN(plan.layer.uuid, parse_uuid_option("--uuid", options.uuid, Uuid::random()));
  OBD_TRY_ASSIGN(plan.layer.parent_uuid,
                 parse_uuid_option("--parent-uuid", options.parent_uuid, plan.layer.parent_uuid));
  if (!options.mkfs.empty()) {
    if (!plan.lowers.empty()) {
      return fail(EINVAL, "--mkfs: would hide what the lowers hold: leave out one or the other");
    }
    OBD_TRY_ASSIGN(plan.mkfs_program, find_mkfs(options.mkfs));
  }
  return plan;
}

// Makes the folder, or makes sure that it is free; returns its absolute path.
Result<std::string> prepare_directory(FileSystem& fs, const std::string& path,
                                      NewImageFiles& made) {
  std::error_code code;
  if (std::filesystem::create_directory(path, code)) {
    made.made_directory(path);
  } else if (code == std::errc::no_such_file_or_directory) {
    return fail(ENOENT, "{}: the folder that it should be in does not exist", path);
  } else if (code) {
    return fail_errno(code.value(), "{}: cannot make the folder", path);
  }
  OBD_TRY_ASSIGN(std::string directory, fs.canonical(path));
  for (const std::string_view name : {kConfigName, kDataName, kIndexName}) {
    OBD_TRY_ASSIGN(const bool taken, fs.exists(join(directory, name)));
    if (taken) {
      return fail(EEXIST, "{}: holds {} already: choose another folder", path, name);
    }
  }
  return directory;
}

// Lets the host's mkfs fill a sparse file, and writes what it wrote into the image.
Result<void> fill_with_file_system(FileSystem& fs, const Plan& plan, const std::string& fstype,
                                   const ImageConfig& config) {
  const std::string directory = directory_of(config.path);
  // Never finished, so it goes away with this function.
  OBD_TRY_ASSIGN(auto scratch, OutputFile::create(fs, join(directory, kDataName), 0600, true));
  if (auto sized = scratch.file().truncate(plan.layer.virtual_size); !sized) {
    return fail(sized.error().code,
                "--mkfs: needs a sparse temporary file as large as the disk, and that failed: {}",
                sized.error().message);
  }
  OBD_TRY(run_mkfs(plan.mkfs_program, fstype, scratch.file().path()));

  OBD_TRY_ASSIGN(const auto image, Image::open(fs, config, {.access = Access::read_write}));
  OBD_TRY_ASSIGN(const auto runs, data_runs(scratch.file()));
  OBD_TRY(copy_runs(scratch.file(), runs, "writing " + fstype,
                    [&](uint64_t offset, std::span<const std::byte> data) {
                      return image->write(data, offset);
                    }));
  OBD_TRY(image->flush());
  return image->close();
}

Result<ImageConfig> build(FileSystem& fs, const CreateOptions& options, Plan& plan) {
  NewImageFiles made(fs);
  OBD_TRY_ASSIGN(const std::string directory, prepare_directory(fs, options.directory, made));
  ImageConfig config;
  config.path = join(directory, kConfigName);
  config.lowers = plan.lowers;
  config.upper = UpperConfig{join(directory, kDataName), join(directory, kIndexName)};

  OBD_TRY(create_writable_layer(fs, config.upper->data, config.upper->index, plan.layer));
  made.made_file(config.upper->index);
  made.made_file(config.upper->data);
  if (!plan.mkfs_program.empty()) {
    OBD_TRY(fill_with_file_system(fs, plan, options.mkfs, config));
  }
  made.made_file(config.path);
  // Relative, so that a copy of the folder is an image of its own, not a second name of this one.
  config.upper = UpperConfig{std::string(kDataName), std::string(kIndexName)};
  OBD_TRY(save_config(fs, config));
  OBD_TRY(fs.sync_directory(directory_of(directory)));
  made.keep();
  return config;
}

Result<int> run_create(const CreateOptions& options) {
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(Plan plan, make_plan(fs, options));
  OBD_TRY_ASSIGN(const ImageConfig config, build(fs, options, plan));
  std::string below = plan.lowers.empty() ? "" : ", " + counted(plan.lowers.size(), "lower");
  if (!options.mkfs.empty()) below = ", " + options.mkfs;
  fmt::print("created {}: disk of {}, {} upper{}\n", config.path,
             human_size(plan.layer.virtual_size), options.type, below);
  fmt::print("serve it:  nbdkit overlaybd {}\n", shell_quoted(config.path));
  return kExitSuccess;
}

}  // namespace

void add_create(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<CreateOptions>();
  CLI::App* command = app.add_subcommand("create", "Makes a new image in a folder of its own");
  command->add_option("DIR", options->directory, "The folder; made when it does not exist")
      ->required();
  command
      ->add_option("-t,--type", options->type,
                   "append: a log, grows with every write (default);\n"
                   "sparse: data at its own place, never larger than the disk")
      ->check(CLI::IsMember({"append", "sparse"}).description(""))
      ->type_name("append|sparse");
  command->add_option("-s,--size", options->size,
                      "Size of the disk, as in 512M, 10G, 1.5T (default: the lowers')");
  CLI::Option* lower =
      command->add_option("-l,--lower", options->lowers, "Sealed layers below it, bottom first")
          ->type_name("FILE");
  command->add_option("--from", options->from, "Take the lowers of a sealed image")
      ->type_name("IMAGE")
      ->excludes(lower);
  command->add_option("--mkfs", options->mkfs, "Put an empty file system on it: ext4, xfs, ...")
      ->type_name("FSTYPE");
  command->add_option("--uuid", options->uuid, "The layer's UUID (default: a random one)");
  command->add_option("--parent-uuid", options->parent_uuid,
                      "UUID of the layer below it (default: the topmost lower's)");
  command->footer(
      "Makes config.v1.json, writable_data and writable_index in DIR.\n\n"
      "Examples:\n"
      "  obd create disk --size 10G --mkfs ext4\n"
      "  obd create top --lower base.lsmt app.lsmt --type sparse\n"
      "  obd create next --from disk/config.v1.json    after obd seal disk");
  command->callback([options, &chosen] { chosen = [options] { return run_create(*options); }; });
}

}  // namespace obd::tool
