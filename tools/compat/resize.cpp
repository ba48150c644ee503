// overlaybd-resize: gives an image's disk another size, and the ext4 on it as well.
//
// The host's e2fsck and resize2fs work on an export of the disk, a sparse file without a name; so
// whatever they refuse or leave half done, the image is as it was. What they changed is then
// applied to the upper as one step (core/image/update.h). A disk grows before that and shrinks
// after it: at any moment it holds a file system that fits on it. The image is open for writing,
// which keeps everybody else out, from before the export until the end.

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <vector>

#include "core/base/zeros.h"
#include "core/format/little_endian.h"
#include "core/image/resize.h"
#include "core/image/update.h"
#include "core/io/descriptor.h"
#include "tools/compat/compat.h"
#include "tools/obd/common.h"
#include "tools/obd/data_runs.h"
#include "tools/obd/program.h"
#include "tools/obd/progress.h"

namespace obd::compat {
namespace {

constexpr int kResizeFailure = 1;

struct ResizeArguments {
  std::string config;
  uint64_t size = 0;  // GiB
};

// The superblock of ext2, ext3 and ext4, as far as it is needed here.
constexpr uint64_t kSuperblockOffset = 1024;
constexpr size_t kSuperblockSize = 1024;
constexpr uint16_t kExtMagic = 0xEF53;
constexpr uint32_t kMaxLogBlockSize = 6;  // 64 KiB
constexpr uint32_t kFeature64Bit = 0x80;

using Superblock = std::array<std::byte, kSuperblockSize>;

// In bytes; nullopt when this is no superblock.
std::optional<uint64_t> size_of_file_system(const Superblock& block) {
  const auto word = [&](size_t at) {
    return load_le<uint32_t>(std::span<const std::byte, 4>(&block[at], 4));
  };
  if (load_le<uint16_t>(std::span<const std::byte, 2>(&block[0x38], 2)) != kExtMagic) {
    return std::nullopt;
  }
  const uint32_t log_block_size = word(0x18);
  if (log_block_size > kMaxLogBlockSize) return std::nullopt;
  const uint64_t high = (word(0x60) & kFeature64Bit) != 0 ? word(0x150) : 0;
  const uint64_t blocks = high << 32 | word(0x4);
  const uint64_t block_size = uint64_t{1024} << log_block_size;
  if (blocks > kMaxDiskSize / block_size) return std::nullopt;
  return blocks * block_size;
}

Result<uint64_t> find_file_system(const Image& image) {
  Superblock block{};
  if (image.size() >= kSuperblockOffset + block.size()) {
    OBD_TRY(image.read(block, kSuperblockOffset));
  }
  if (const auto size = size_of_file_system(block)) return *size;
  return fail(EINVAL,
              "{}: there is no ext2, ext3 or ext4 on the disk itself (a partition table is not "
              "looked into); obd resize changes the size of the disk alone",
              image.config().path);
}

// Neither e2fsck nor resize2fs looks behind the file system: growing would write over what is
// there, and shrinking would cut it off.
Result<void> refuse_data_behind(const Image& image, uint64_t end) {
  if (end >= image.size()) return {};
  std::vector<ByteRange> behind;
  OBD_TRY(image.extents(end, image.size() - end, [&](const ImageExtent& extent) {
    if (extent.kind == ExtentKind::data) behind.push_back({extent.offset, extent.length});
    return true;
  }));
  std::vector<std::byte> buffer(tool::kCopyBufferSize);
  for (const ByteRange& range : behind) {
    for (uint64_t done = 0; done < range.length;) {
      const auto piece = std::span(buffer).first(
          static_cast<size_t>(std::min<uint64_t>(buffer.size(), range.length - done)));
      OBD_TRY(image.read(piece, range.offset + done));
      if (!is_all_zero(piece)) {
        return fail(
            EINVAL,
            "{}: the file system ends at byte {} of the disk, and there is data behind it, "
            "at byte {} or soon after: nothing has been changed; if nobody needs that data, "
            "discard it (blkdiscard --offset {} on the served disk)",
            image.config().path, end, range.offset + done, end);
      }
      done += piece.size();
    }
  }
  return {};
}

Result<std::string> find_tool(const std::string& name) {
  auto program = tool::find_program(name);
  if (!program && program.error().code == ENOENT) {
    return fail(ENOENT, "{}: install e2fsprogs", program.error().message);
  }
  return program;
}

// A file beside the upper that goes away with this process, however that ends. Others reach it by
// the path of its File.
struct NamelessFile {
  Descriptor fd;
  std::unique_ptr<File> file;
};

Result<NamelessFile> make_nameless_file(FileSystem& fs, const std::string& beside) {
  OBD_TRY_ASSIGN(std::string name, fs.canonical(beside));
  name += ".tmp-XXXXXX";
  NamelessFile made{Descriptor(::mkostemp(name.data(), O_CLOEXEC)), nullptr};
  if (!made.fd) return fail_errno(errno, "{}: cannot make a file beside it", beside);
  if (::unlink(name.c_str()) != 0) return fail_errno(errno, "{}: cannot remove", name);
  OBD_TRY_ASSIGN(made.file, fs.open(fmt::format("/proc/{}/fd/{}", ::getpid(), made.fd.get()),
                                    Access::read_write));
  return made;
}

Result<void> export_disk(const Image& image, File& disk) {
  std::vector<ImageExtent> extents;
  uint64_t total = 0;
  OBD_TRY(image.extents(0, image.size(), [&](const ImageExtent& extent) {
    if (extent.kind != ExtentKind::data) return true;
    extents.push_back(extent);
    total += extent.length;
    return true;
  }));
  const tool::DataSink sink = [&](uint64_t offset, std::span<const std::byte> data) {
    return disk.write_at(data, offset);
  };
  tool::Progress progress("exporting", total);
  std::vector<std::byte> buffer(tool::kCopyBufferSize);
  for (const ImageExtent& extent : extents) {
    for (uint64_t done = 0; done < extent.length;) {
      const auto piece = std::span(buffer).first(
          static_cast<size_t>(std::min<uint64_t>(buffer.size(), extent.length - done)));
      OBD_TRY(image.read(piece, extent.offset + done));
      OBD_TRY(tool::skip_zero_blocks(extent.offset + done, piece, sink));
      OBD_TRY(progress.advance(piece.size()));
      done += piece.size();
    }
  }
  return {};
}

// Writes the update that gives the file system its new size; false when it has that already.
Result<bool> prepare_file_system(FileSystem& fs, const Image& image, uint64_t size) {
  OBD_TRY_ASSIGN(const std::string e2fsck, find_tool("e2fsck"));
  OBD_TRY_ASSIGN(const std::string resize2fs, find_tool("resize2fs"));
  // Goes away with this function, before the update is applied and needs the space.
  OBD_TRY_ASSIGN(const NamelessFile made, make_nameless_file(fs, image.config().upper->data));
  File& disk = *made.file;
  if (auto sized = disk.truncate(std::max(size, image.size())); !sized) {
    return fail(sized.error().code,
                "a sparse temporary file as large as the disk is needed, and that failed: {}",
                sized.error().message);
  }
  OBD_TRY(export_disk(image, disk));

  const std::string& path = disk.path();
  OBD_TRY_ASSIGN(const int checked, tool::run_program({e2fsck, "-f", "-p", path}));
  // 1: there were errors, and they are corrected.
  if (checked > 1) {
    return fail(EIO,
                "{}: {} failed with exit status {}, its own message is above; nothing has been "
                "changed; mend the file system first (e2fsck -f on the served disk)",
                image.config().path, e2fsck, checked);
  }
  OBD_TRY_ASSIGN(const int resized,
                 tool::run_program({resize2fs, path, fmt::format("{}s", size / kSectorSize)}));
  if (resized != 0) {
    return fail(EIO,
                "{}: {} failed with exit status {}, its own message is above; nothing has been "
                "changed",
                image.config().path, resize2fs, resized);
  }
  Superblock block{};
  OBD_TRY(read_exactly(disk, block, kSuperblockOffset));
  const auto reached = size_of_file_system(block);
  if (!reached || *reached > size) {
    return fail(EIO,
                "{}: {} left a file system that does not fit on a disk of {} bytes; nothing has "
                "been changed",
                image.config().path, resize2fs, size);
  }
  // What a smaller disk will not have is zeroed by the update: when the host goes down before the
  // disk is cut, the next run finds nothing behind the file system.
  OBD_TRY(disk.truncate(size));
  return write_update(fs, image, disk, std::max(size, image.size()), tool::progress_lines());
}

Result<int> resize(const ResizeArguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  FileSystem& fs = posix_file_system();
  if (arguments.size == 0 || arguments.size > kMaxDiskSize / kGiB) {
    return fail(EINVAL, "--size: a disk cannot have {} GB", arguments.size);
  }
  const uint64_t size = arguments.size * kGiB;
  OBD_TRY_ASSIGN(const ImageConfig config, load_config(fs, arguments.config));
  OBD_TRY_ASSIGN(const ImageForUpdate opened, open_for_update(fs, config));
  if (opened.finished_earlier)
    tool::warn("finished what an interrupted overlaybd-resize had begun");
  Image& image = *opened.image;
  OBD_TRY_ASSIGN(const uint64_t end, find_file_system(image));
  OBD_TRY(refuse_data_behind(image, end));

  OBD_TRY_ASSIGN(const bool changes, prepare_file_system(fs, image, size));
  if (size > image.size()) OBD_TRY(resize_disk(fs, image, size));
  if (changes) OBD_TRY(apply_update(fs, image));
  if (size < image.size()) OBD_TRY(resize_disk(fs, image, size));
  OBD_TRY(image.close());

  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  fmt::print("Success: filesystem resized to {} GB ({:.3f} seconds)\n", arguments.size,
             elapsed.count());
  return 0;
}

int main(int argc, char** argv) {
  CLI::App app("Resizes the disk of an image and the ext4 on it", "overlaybd-resize");
  ResizeArguments arguments;
  std::string service_config;
  app.add_option("--config", arguments.config, "The image's config.v1.json")->required();
  app.add_option("--size", arguments.size, "The new size, in GB")->required();
  app.add_option("--service_config_path", service_config, "Accepted; there is no service");
  add_verbose(app);
  app.footer(
      "No server may have the image open. The host needs room beside the upper for a sparse copy\n"
      "of the disk, until the command has ended. When it was interrupted, run it again.\n\n"
      "Example:\n"
      "  overlaybd-resize --config config.v1.json --size 128");
  return run(app, argc, argv, kResizeFailure, [&] { return resize(arguments); });
}

}  // namespace
}  // namespace obd::compat

int main(int argc, char** argv) { return obd::compat::main(argc, argv); }
