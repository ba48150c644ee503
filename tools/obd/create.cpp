// obd create: a folder with a new image: its config and its writable layer.
//
// Everything that can be refused is refused before anything is made; after that, a failure removes
// what was made. The config is written last, so that an image either is whole or is not there.

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <vector>

#include "core/layer/sealed_layer.h"
#include "core/layer/writable_layer.h"
#include "tools/obd/command.h"
#include "tools/obd/common.h"
#include "tools/obd/mkfs.h"
#include "tools/obd/new_image.h"
#include "tools/obd/size_text.h"

namespace obd::tool {
namespace {

struct CreateOptions {
  std::string directory;
  std::string type = "append";
  std::string size;
  std::vector<std::string> lowers;
  std::string from;
  std::string mkfs;
  std::string uuid;
  std::string parent_uuid;
  bool json = false;
  // What these come to:
  uint64_t disk_size = 0;  // 0: that of the lowers
  Uuid new_uuid;
  std::optional<Uuid> new_parent_uuid;
};

Result<void> parse(CreateOptions& options) {
  if (!options.size.empty()) {
    Result<uint64_t> size = parse_disk_size(options.size);
    if (!size) return fail(size.error().code, "--size: {}", size.error().message);
    options.disk_size = *size;
  } else if (options.lowers.empty() && options.from.empty()) {
    return fail(EINVAL, "--size: is needed, as there is no lower that has a size");
  }
  OBD_TRY_ASSIGN(options.new_uuid, parse_uuid_option("--uuid", options.uuid, Uuid::random()));
  if (!options.parent_uuid.empty()) {
    OBD_TRY_ASSIGN(options.new_parent_uuid,
                   parse_uuid_option("--parent-uuid", options.parent_uuid, Uuid()));
  }
  return options.mkfs.empty() ? Result<void>() : check_fstype(options.mkfs);
}

// What the options come to.
struct Plan {
  std::vector<std::string> lowers;  // canonical paths, bottom first
  NewLayer layer;
  std::string mkfs_program;  // empty: none
};

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
  const uint64_t size = options.disk_size;
  if (size == 0) {
    if (size_of_lowers != 0) return {};
    return fail(EINVAL, "--size: is needed, as there is no lower that has a size");
  }
  plan.layer.virtual_size = size;
  if (size < size_of_lowers) {
    warn(fmt::format("the disk is smaller than its lowers: what they hold past {} is cut off",
                     exact_size(size)));
  }
  if (size > lsmt::kAddressableEnd.bytes()) {
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
  plan.layer.uuid = options.new_uuid;
  plan.layer.parent_uuid = options.new_parent_uuid.value_or(plan.layer.parent_uuid);
  if (!options.mkfs.empty()) {
    OBD_TRY_ASSIGN(plan.mkfs_program, find_mkfs(options.mkfs));
  }
  return plan;
}

Result<ImageConfig> build(FileSystem& fs, const CreateOptions& options, Plan& plan) {
  NewImageFiles made(fs);
  OBD_TRY_ASSIGN(const std::string directory, prepare_directory(fs, options.directory, made));
  ImageConfig config;
  config.path = path_in(directory, kConfigName);
  config.lowers = plan.lowers;
  config.upper =
      UpperConfig{path_in(directory, kUpperDataName), path_in(directory, kUpperIndexName)};

  OBD_TRY(create_writable_layer(fs, config.upper->data, config.upper->index, plan.layer));
  made.made_file(config.upper->index);
  made.made_file(config.upper->data);
  if (!plan.mkfs_program.empty()) {
    OBD_TRY(fill_with_file_system(fs, plan.mkfs_program, options.mkfs, config));
  }
  made.made_file(config.path);
  // Relative, so that a copy of the folder is an image of its own, not a second name of this one.
  config.upper = UpperConfig{std::string(kUpperDataName), std::string(kUpperIndexName)};
  OBD_TRY(save_config(fs, config));
  OBD_TRY(fs.sync_directory(directory_of(directory)));
  made.keep();
  return config;
}

Result<int> run_create(const CreateOptions& options) {
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(Plan plan, make_plan(fs, options));
  OBD_TRY_ASSIGN(const ImageConfig config, build(fs, options, plan));
  if (options.json) {
    const Json json = {{"image", config.path},
                       {"virtual_size", plan.layer.virtual_size},
                       {"upper", options.type},
                       {"uuid", plan.layer.uuid.text()},
                       {"lowers", plan.lowers.size()}};
    fmt::print("{}\n", json_text(json, 2));
    return kExitSuccess;
  }
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
  CLI::Option* from =
      command->add_option("--from", options->from, "Take the lowers of a sealed image")
          ->type_name("IMAGE")
          ->excludes(lower);
  command->add_option("--mkfs", options->mkfs, "Put an empty file system on it: ext4, xfs, ...")
      ->type_name("FSTYPE")
      ->excludes(lower)
      ->excludes(from);
  command->add_option("--uuid", options->uuid, "The layer's UUID (default: a random one)");
  command->add_option("--parent-uuid", options->parent_uuid,
                      "UUID of the layer below it (default: the topmost lower's)");
  command->add_flag("--json", options->json, "Print JSON, sizes in bytes");
  command->footer(
      "Makes config.v1.json, writable_data and writable_index in DIR.\n\n"
      "Examples:\n"
      "  obd create disk --size 10G --mkfs ext4\n"
      "  obd create top --lower base.lsmt app.lsmt --type sparse\n"
      "  obd create next --from disk/config.v1.json    after obd seal disk");
  command->callback([options, &chosen] {
    or_usage_error(parse(*options));
    chosen = [options] { return run_create(*options); };
  });
}

}  // namespace obd::tool
