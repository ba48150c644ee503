// overlaybd-create: the two files of a new writable layer.

#include <fmt/format.h>

#include <cerrno>

#include "core/image/image.h"
#include "tools/compat/compat.h"
#include "tools/obd/common.h"
#include "tools/obd/mkfs.h"

namespace obd::compat {
namespace {

struct CreateArguments {
  std::string parent_uuid;
  bool sparse = false;
  bool raw = false;
  bool mkfs = false;
  std::string data;
  std::string index;
  uint64_t size = 0;  // GiB
};

// Removes the two files unless they are kept.
class NewFiles {
 public:
  NewFiles(FileSystem& fs, const CreateArguments& names) : fs_(fs), names_(names) {}
  ~NewFiles() {
    if (kept_) return;
    static_cast<void>(fs_.remove(names_.data));
    static_cast<void>(fs_.remove(names_.index));
  }
  NewFiles(const NewFiles&) = delete;
  NewFiles& operator=(const NewFiles&) = delete;
  void keep() { kept_ = true; }

 private:
  FileSystem& fs_;
  const CreateArguments& names_;
  bool kept_ = false;
};

// A plain disk, and an index file that means nothing.
Result<void> create_raw(FileSystem& fs, const CreateArguments& arguments, uint64_t size) {
  OBD_TRY_ASSIGN(const auto index, fs.create(arguments.index, 0644));
  auto data = fs.create(arguments.data, 0644);
  if (!data) {
    static_cast<void>(fs.remove(arguments.index));
    return std::unexpected(data.error());
  }
  NewFiles made(fs, arguments);
  OBD_TRY((*data)->truncate(size));
  if (arguments.mkfs) {
    OBD_TRY_ASSIGN(const std::string program, tool::find_mkfs("ext4"));
    OBD_TRY(tool::run_mkfs(program, "ext4", arguments.data));
  }
  OBD_TRY((*data)->sync());
  made.keep();
  return {};
}

Result<void> create_layer(FileSystem& fs, const CreateArguments& arguments, uint64_t size) {
  NewLayer layer;
  layer.kind = arguments.sparse ? UpperKind::sparse : UpperKind::append;
  layer.virtual_size = size;
  layer.uuid = Uuid::random();
  OBD_TRY_ASSIGN(layer.parent_uuid, tool::parse_uuid_option("-u", arguments.parent_uuid, Uuid()));
  OBD_TRY(create_writable_layer(fs, arguments.data, arguments.index, layer));
  NewFiles made(fs, arguments);
  if (arguments.mkfs) {
    OBD_TRY_ASSIGN(const std::string program, tool::find_mkfs("ext4"));
    ImageConfig config;
    config.path = arguments.data;
    config.upper = UpperConfig{arguments.data, arguments.index};
    OBD_TRY(tool::fill_with_file_system(fs, program, "ext4", config));
  }
  made.keep();
  return {};
}

Result<int> create(const CreateArguments& arguments) {
  FileSystem& fs = posix_file_system();
  if (arguments.size > kMaxDiskSize / kGiB) {
    return fail(EINVAL, "vsize: {} GB is more than a disk can have", arguments.size);
  }
  const uint64_t size = arguments.size * kGiB;
  if (arguments.mkfs && size == 0) {
    return fail(EINVAL, "--mkfs: needs a vsize, as a disk of 0 GB has no room for a file system");
  }
  OBD_TRY(arguments.raw ? create_raw(fs, arguments, size) : create_layer(fs, arguments, size));
  fmt::print("overlaybd-create has created files SUCCESSFULLY\n");
  return 0;
}

int main(int argc, char** argv) {
  CLI::App app("Creates the two files of a writable layer", "overlaybd-create");
  CreateArguments arguments;
  const std::string turbo = "turboOCI layers are not supported";
  app.add_option("-u", arguments.parent_uuid, "UUID of the layer below");
  app.add_flag("-s", arguments.sparse, "A sparse layer rather than an append one");
  add_refused_flag(app, "--turboOCI", turbo);
  add_refused_flag(app, "--fastoci", turbo);
  app.add_flag("--raw", arguments.raw, "A plain disk rather than a layer");
  app.add_flag("--mkfs", arguments.mkfs, "Put an empty ext4 on it");
  app.add_option("data_file", arguments.data, "The data file; must not exist")->required();
  app.add_option("index_file", arguments.index, "The index file; must not exist")->required();
  app.add_option("vsize", arguments.size, "Size of the disk in GB; 0: that of the layers below")
      ->required();
  add_verbose(app);
  app.footer(
      "Example:\n"
      "  overlaybd-create writable_data writable_index 64 -s");
  return run(app, argc, argv, kFailure, [&] { return create(arguments); });
}

}  // namespace
}  // namespace obd::compat

int main(int argc, char** argv) { return obd::compat::main(argc, argv); }
