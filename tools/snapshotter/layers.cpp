#include "tools/snapshotter/layers.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <set>
#include <span>
#include <utility>

#include "core/image/image.h"
#include "core/io/descriptor.h"
#include "core/io/file.h"
#include "core/layer/layer_writer.h"
#include "core/layer/sealed_layer.h"
#include "tools/obd/mkfs.h"
#include "tools/obd/program.h"
#include "tools/snapshotter/direct_reader.h"
#include "tools/snapshotter/log.h"

namespace obd::snapshotter {
namespace {

constexpr const char* kFrozenName = "overlaybd.sealed";
constexpr uint64_t kBlockOfStat = 512;

Result<void> make_folder(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) {
    return fail_errno(errno, "{}: cannot be made", path);
  }
  // Whatever the umask has taken away.
  if (::chmod(path.c_str(), mode) != 0)
    return fail_errno(errno, "{}: cannot change its mode", path);
  return {};
}

// Overlay mounts separate folders by these characters.
Result<void> refuse_odd_root(const std::string& root) {
  if (root.find_first_of(":,\\\"") == std::string::npos) return {};
  return fail(EINVAL,
              "{}: overlay mounts cannot have a comma, colon, quote or backslash in it: choose "
              "another root",
              root);
}

Result<void> take_over_owner(const std::string& path, const std::string& below) {
  struct stat info{};
  if (::stat(below.c_str(), &info) != 0) return fail_errno(errno, "{}", below);
  if (::lchown(path.c_str(), info.st_uid, info.st_gid) != 0 ||
      ::chmod(path.c_str(), info.st_mode & 07777) != 0) {
    return fail_errno(errno, "{}: cannot change its owner and mode", path);
  }
  return {};
}

// Of the folder's entries; what a file system has by itself is left out.
Result<std::set<std::string>> names_in(const std::string& folder) {
  std::set<std::string> names;
  if (folder.empty()) return names;
  std::error_code code;
  std::filesystem::directory_iterator it(folder, code);
  while (!code && it != std::filesystem::directory_iterator()) {
    names.insert(it->path().filename());
    it.increment(code);
  }
  if (code) return fail_errno(code.value(), "{}: cannot be read", folder);
  names.erase("lost+found");
  return names;
}

Result<bool> is_there(const std::string& path) { return posix_file_system().exists(path); }

// With rm, which knows how to deal with folders that are deeper than a path can be long, and does
// not reach into a disk that is mounted.
Result<void> remove_tree(const std::string& path) {
  OBD_TRY_ASSIGN(const bool there, is_there(path));
  if (!there) return {};
  OBD_TRY_ASSIGN(const std::string rm, tool::find_program("rm"));
  OBD_TRY_ASSIGN(const int status, tool::run_program({rm, "-rf", "--one-file-system", "--", path}));
  if (status != 0) return fail(EIO, "{}: cannot be removed", path);
  return {};
}

Result<void> copy_file(int from, const std::string& from_name, int to, const std::string& to_name) {
  while (true) {
    const ssize_t copied = ::copy_file_range(from, nullptr, to, nullptr, size_t{1} << 30, 0);
    if (copied == 0) break;
    if (copied > 0 || errno == EINTR) continue;
    // Not between these two file systems: by hand, from where it stopped.
    if (errno != EXDEV && errno != EOPNOTSUPP && errno != EINVAL && errno != ENOSYS) {
      return fail_errno(errno, "{}: cannot be copied to {}", from_name, to_name);
    }
    std::vector<char> buffer(size_t{1} << 20);
    while (true) {
      const ssize_t got = ::read(from, buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail_errno(errno, "{}: cannot be read", from_name);
      if (got == 0) break;
      for (ssize_t done = 0; done < got;) {
        const ssize_t put = ::write(to, buffer.data() + done, static_cast<size_t>(got - done));
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return fail_errno(errno, "{}: cannot be written", to_name);
        done += put;
      }
    }
    break;
  }
  if (::fsync(to) != 0) return fail_errno(errno, "{}: cannot be made stable", to_name);
  return {};
}

// One after the other, in order of the disk.
Result<std::vector<ImageExtent>> extents_of_upper(const Image& image) {
  std::vector<ImageExtent> extents;
  OBD_TRY(image.extents(0, image.size(), [&](const ImageExtent& extent) {
    if (extent.kind != ExtentKind::hole && extent.layer == image.config().lowers.size()) {
      extents.push_back(extent);
    }
    return true;
  }));
  return extents;
}

// The server may be moving data within the layer's file, to give space back, so only where there is
// data is taken from the file. The data itself is read from the device, past the page cache.
Result<void> copy_frozen_layer(const ImageConfig& config, const std::string& device,
                               const std::string& sealed) {
  FileSystem& host = posix_file_system();
  OBD_TRY_ASSIGN(const auto image,
                 Image::open(host, config, {.access = Access::read_only, .force_share = true}));
  OBD_TRY_ASSIGN(const auto layers, image->layers());
  OBD_TRY_ASSIGN(const auto extents, extents_of_upper(*image));
  OBD_TRY_ASSIGN(const auto disk, DirectReader::open(device));
  LayerOptions options;
  options.overwrite = true;  // of one that was cut short
  options.virtual_size = image->size();
  options.uuid = layers.back().uuid;
  options.parent_uuid = layers.back().parent_uuid;
  OBD_TRY_ASSIGN(const auto writer, LayerWriter::create(host, sealed, options));
  for (const ImageExtent& extent : extents) {
    const uint64_t end = extent.offset + extent.length;
    if (extent.kind == ExtentKind::zero) {
      OBD_TRY(writer->append_zero(Sectors::floor(extent.offset), Sectors::floor(extent.length)));
      continue;
    }
    for (uint64_t at = extent.offset; at < end;) {
      OBD_TRY_ASSIGN(const auto piece, disk.read(at, end - at));
      OBD_TRY(writer->append_data(Sectors::floor(at), piece));
      at += piece.size();
    }
  }
  OBD_TRY(writer->finish());
  for (const std::string& sentence : writer->warnings()) log_warning("{}", sentence);
  return {};
}

}  // namespace

Result<Layers> Layers::open(const std::string& root) {
  OBD_TRY(refuse_odd_root(root));
  std::error_code code;
  std::filesystem::create_directories(root, code);
  if (code) return fail_errno(code.value(), "{}: cannot be made", root);
  OBD_TRY_ASSIGN(std::string real, posix_file_system().canonical(root));
  OBD_TRY(refuse_odd_root(real));
  Layers layers(std::move(real));
  OBD_TRY(make_folder(layers.root_, 0700));
  OBD_TRY(make_folder(layers.snapshots(), 0700));
  return layers;
}

std::string Layers::folder(int64_t id) const { return fmt::format("{}/snapshots/{}", root_, id); }
std::string Layers::image(int64_t id) const { return fmt::format("{}/{}", block(id), kConfigName); }

Result<void> Layers::make_folders(int64_t id, const std::string& below) const {
  OBD_TRY(make_folder(folder(id), 0700));
  OBD_TRY(make_folder(fs(id), 0755));
  OBD_TRY(make_folder(work(id), 0711));
  if (!below.empty()) OBD_TRY(take_over_owner(fs(id), below));
  OBD_TRY(posix_file_system().sync_directory(folder(id)));
  return posix_file_system().sync_directory(snapshots());
}

Result<std::vector<std::string>> Layers::lowers_over(std::optional<int64_t> parent) const {
  if (!parent) return std::vector<std::string>();
  OBD_TRY_ASSIGN(ImageConfig below, load_config(posix_file_system(), image(*parent)));
  if (below.upper) return fail(EIO, "{}: is not sealed", below.path);
  return std::move(below.lowers);
}

Result<void> Layers::make_disk(int64_t id, const NewDisk& disk) const {
  FileSystem& host = posix_file_system();
  OBD_TRY(make_folder(block(id), 0700));
  OBD_TRY(make_folder(mount_point(id), 0755));
  ImageConfig config;
  config.path = image(id);
  OBD_TRY_ASSIGN(config.lowers, lowers_over(disk.parent));
  if (config.lowers.size() > kMaxLowers) {
    return fail(EINVAL,
                "a disk has at most {} layers below the writable one, and these are {}: "
                "merge some, with obd merge",
                kMaxLowers, config.lowers.size());
  }
  config.upper = UpperConfig{fmt::format("{}/{}", block(id), kUpperDataName),
                             fmt::format("{}/{}", block(id), kUpperIndexName)};
  NewLayer layer{
      .kind = disk.kind, .virtual_size = disk.size, .uuid = Uuid::random(), .parent_uuid = Uuid()};
  if (!config.lowers.empty()) {
    OBD_TRY_ASSIGN(const auto top, SealedLayer::open(host, config.lowers.back()));
    layer.parent_uuid = top->trailer().uuid;
  }
  OBD_TRY(create_writable_layer(host, config.upper->data, config.upper->index, layer));
  if (!disk.parent) {
    OBD_TRY_ASSIGN(const std::string mkfs, tool::find_mkfs(disk.fstype));
    OBD_TRY(tool::fill_with_file_system(host, mkfs, disk.fstype, config, disk.mkfs_options));
  }
  config.upper = UpperConfig{std::string(kUpperDataName), std::string(kUpperIndexName)};
  OBD_TRY(save_config(host, config));
  return host.sync_directory(folder(id));
}

Result<uint64_t> Layers::disk_size(int64_t id) const {
  OBD_TRY_ASSIGN(const auto opened,
                 Image::open(posix_file_system(), image(id),
                             {.access = Access::read_only, .force_share = true}));
  return opened->size();
}

Result<std::optional<std::string>> Layers::sealed_layer(int64_t id) const {
  OBD_TRY_ASSIGN(const ImageConfig config, load_config(posix_file_system(), image(id)));
  if (config.upper || config.lowers.empty()) return std::nullopt;
  return config.lowers.back();
}

Result<void> Layers::seal(int64_t id) const {
  OBD_TRY_ASSIGN(const auto warnings, seal_image(posix_file_system(), image(id)));
  for (const std::string& sentence : warnings) log_warning("{}", sentence);
  return {};
}

Result<void> Layers::seal_frozen(int64_t id, const std::string& device) const {
  FileSystem& host = posix_file_system();
  OBD_TRY_ASSIGN(ImageConfig config, load_config(host, image(id)));
  const std::string sealed = fmt::format("{}/{}", block(id), kFrozenName);
  OBD_TRY(copy_frozen_layer(config, device, sealed));
  config.lowers.push_back(sealed);
  config.upper.reset();
  return save_config(host, config);
}

bool Layers::has_leftovers(int64_t id) const {
  const auto config = load_config(posix_file_system(), image(id));
  if (!config || config->upper) return false;
  return ::access(fmt::format("{}/{}", block(id), kUpperIndexName).c_str(), F_OK) == 0;
}

void Layers::remove_leftovers(int64_t id) const {
  if (!has_leftovers(id)) return;
  const auto config = load_config(posix_file_system(), image(id));
  if (!config) return;
  const std::string data = fmt::format("{}/{}", block(id), kUpperDataName);
  // Sealed in place, it is the layer itself.
  if (config->lowers.empty() || config->lowers.back() != data) ::unlink(data.c_str());
  ::unlink(fmt::format("{}/{}", block(id), kUpperIndexName).c_str());
}

Result<bool> Layers::is_blob_alone(const std::string& in, const std::string& below) const {
  struct stat info{};
  if (::lstat(fmt::format("{}/{}", in, kBlobName).c_str(), &info) != 0) return false;
  if (!S_ISREG(info.st_mode)) return false;
  OBD_TRY_ASSIGN(std::set<std::string> expected, names_in(below));
  expected.insert(kBlobName);
  OBD_TRY_ASSIGN(const std::set<std::string> found, names_in(in));
  return found == expected;
}

Result<void> Layers::take_blob(int64_t id, const std::string& from) const {
  const std::string name = fmt::format("{}/{}", from, kBlobName);
  const Descriptor source(::open(name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!source) return fail_errno(errno, "{}: cannot be opened", name);
  const std::string copy = fmt::format("{}/{}.temp", fs(id), kBlobName);
  const Descriptor target(::open(copy.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!target) return fail_errno(errno, "{}: cannot be made", copy);
  OBD_TRY(copy_file(source.get(), name, target.get(), copy));
  OBD_TRY(posix_file_system().rename(copy, fmt::format("{}/{}", fs(id), kBlobName)));
  return posix_file_system().sync_directory(fs(id));
}

Result<void> Layers::adopt_blob(int64_t id, std::optional<int64_t> parent) const {
  FileSystem& host = posix_file_system();
  const std::string blob = fmt::format("{}/{}", fs(id), kBlobName);
  {
    OBD_TRY_ASSIGN(const auto layer, SealedLayer::open(host, blob));
    for (const std::string& sentence : layer->warnings()) log_warning("{}", sentence);
  }
  OBD_TRY(make_folder(block(id), 0700));
  OBD_TRY(make_folder(mount_point(id), 0755));
  ImageConfig config;
  config.path = image(id);
  OBD_TRY_ASSIGN(config.lowers, lowers_over(parent));
  if (config.lowers.size() >= kMaxLowers) {
    return fail(EINVAL, "an image has at most {} layers", kMaxLowers);
  }
  config.lowers.push_back(blob);
  OBD_TRY(save_config(host, config));
  remove_leftovers(id);
  return host.sync_directory(folder(id));
}

Result<Usage> Layers::usage(int64_t id) const {
  namespace stdfs = std::filesystem;
  Usage usage;
  std::set<std::pair<dev_t, ino_t>> seen;
  struct stat top{};
  if (::lstat(folder(id).c_str(), &top) != 0) return fail_errno(errno, "{}", folder(id));
  const auto add = [&](const stdfs::path& path, struct stat& info) {
    if (::lstat(path.c_str(), &info) != 0) return false;  // gone meanwhile
    // Only what has several names can come again: a container may have millions of files.
    const bool may_come_again = !S_ISDIR(info.st_mode) && info.st_nlink > 1;
    if (may_come_again && !seen.emplace(info.st_dev, info.st_ino).second) return true;
    usage.size += static_cast<uint64_t>(info.st_blocks) * kBlockOfStat;
    ++usage.inodes;
    return true;
  };
  for (const std::string& part : {fs(id), block(id)}) {
    struct stat info{};
    if (!add(part, info)) continue;
    std::error_code code;
    stdfs::recursive_directory_iterator it(part, stdfs::directory_options::none, code);
    while (!code && it != stdfs::recursive_directory_iterator()) {
      // What is mounted here is counted where it lies.
      if (::lstat(it->path().c_str(), &info) == 0 && info.st_dev != top.st_dev) {
        it.disable_recursion_pending();
      } else {
        add(it->path(), info);
      }
      it.increment(code);
    }
  }
  return usage;
}

Result<void> Layers::sync_content(int64_t id) const {
  const Descriptor folder_fd(::open(fs(id).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder_fd) return fail_errno(errno, "{}: cannot be opened", fs(id));
  if (::syncfs(folder_fd.get()) != 0) return fail_errno(errno, "{}: cannot be made stable", fs(id));
  return {};
}

Result<void> Layers::remove(int64_t id) const { return remove_tree(folder(id)); }

Result<void> Layers::remove_image(int64_t id) const { return remove_tree(block(id)); }

bool Layers::has_sealed_image(int64_t id) const {
  if (::access(image(id).c_str(), F_OK) != 0) return false;
  const auto sealed = sealed_layer(id);
  return sealed && *sealed;
}

Result<std::vector<int64_t>> Layers::list() const {
  std::vector<int64_t> ids;
  std::error_code code;
  std::filesystem::directory_iterator it(snapshots(), code);
  while (!code && it != std::filesystem::directory_iterator()) {
    const std::string name = it->path().filename();
    int64_t id = 0;
    const auto [end, wrong] = std::from_chars(name.data(), name.data() + name.size(), id);
    if (wrong == std::errc() && end == name.data() + name.size() && std::to_string(id) == name) {
      ids.push_back(id);
    }
    it.increment(code);
  }
  if (code) return fail_errno(code.value(), "{}: cannot be read", snapshots());
  return ids;
}

}  // namespace obd::snapshotter
