// overlaybd-resize: gives an image's disk another size, and the ext4 on it as well.
//
// The file system is resized on an export of the disk, a sparse temporary file, by the host's
// e2fsck and resize2fs. What differs then goes into a new upper beside the old one:
//
//   1. the new upper is made whole and stable   two files that no config names
//   2. the config is replaced                   it names the new files, under their own names
//   3. the new files get the old names as well  hard links
//   4. the config is replaced again             it names the old names, which are the new files
//   5. the new files' own names are removed
//
// A crash before 2 leaves the old disk, one after 2 the new one. Running the command again first
// does what is left of 3 to 5, and removes what a crash before 2 has left.

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <vector>

#include "core/base/zeros.h"
#include "core/image/image.h"
#include "core/io/output_file.h"
#include "tools/compat/compat.h"
#include "tools/obd/common.h"
#include "tools/obd/data_runs.h"
#include "tools/obd/interrupt.h"
#include "tools/obd/program.h"
#include "tools/obd/progress.h"

namespace obd::compat {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr uint64_t kChunk = uint64_t{1} << 20;
constexpr std::string_view kNewSuffix = ".resized";
constexpr int kResizeFailure = 1;

struct ResizeArguments {
  std::string config;
  std::string size;  // GiB
};

// Gives a file a second name, replacing what has it.
Result<void> link_over(FileSystem& fs, const std::string& file, const std::string& name) {
  const std::string temporary = name + ".link";
  OBD_TRY_ASSIGN(const bool left_over, fs.exists(temporary));
  if (left_over) OBD_TRY(fs.remove(temporary));
  std::error_code code;
  std::filesystem::create_hard_link(file, temporary, code);
  if (code) return fail_errno(code.value(), "{}: cannot link to {}", file, temporary);
  return fs.rename(temporary, name);
}

std::string without_suffix(const std::string& name) {
  return name.substr(0, name.size() - kNewSuffix.size());
}

// Steps 3 to 5, when step 2 has been done; else removes what was made in step 1.
Result<void> finish_earlier(FileSystem& fs, const std::string& config_path) {
  OBD_TRY_ASSIGN(const ImageConfig config, load_config(fs, config_path));
  if (!config.upper) {
    return fail(EINVAL, "{}: the image has no upper, so its disk cannot change", config_path);
  }
  const UpperConfig& upper = *config.upper;
  UpperConfig own = upper;  // the names of step 1
  if (upper.data.ends_with(kNewSuffix) && upper.index.ends_with(kNewSuffix)) {
    OBD_TRY(link_over(fs, upper.data, without_suffix(upper.data)));
    OBD_TRY(link_over(fs, upper.index, without_suffix(upper.index)));
    OBD_TRY(fs.sync_directory(directory_of(upper.data)));
    OBD_TRY(fs.sync_directory(directory_of(upper.index)));
    OBD_TRY_ASSIGN(UpperConfig written, upper_as_written(fs, config_path));
    OBD_TRY(replace_upper(fs, config_path,
                          {without_suffix(written.data), without_suffix(written.index)}));
  } else {
    own = {upper.data + std::string(kNewSuffix), upper.index + std::string(kNewSuffix)};
  }
  for (const std::string& name : {own.data, own.index}) {
    OBD_TRY_ASSIGN(const bool there, fs.exists(name));
    if (there) OBD_TRY(fs.remove(name));
  }
  return {};
}

Result<void> export_disk(const Image& image, File& disk) {
  OBD_TRY(disk.truncate(image.size()));
  std::vector<ByteRange> runs;
  uint64_t total = 0;
  OBD_TRY(image.extents(0, image.size(), [&](const ImageExtent& extent) {
    if (extent.kind != ExtentKind::data) return true;
    runs.push_back({extent.offset, extent.length});
    total += extent.length;
    return true;
  }));
  tool::Progress progress("exporting", total);
  std::vector<std::byte> buffer(kChunk);
  for (const ByteRange& run : runs) {
    for (uint64_t done = 0; done < run.length;) {
      const auto piece = std::span(buffer).first(
          static_cast<size_t>(std::min<uint64_t>(buffer.size(), run.length - done)));
      OBD_TRY(image.read(piece, run.offset + done));
      if (!is_all_zero(piece)) OBD_TRY(disk.write_at(piece, run.offset + done));
      done += piece.size();
      OBD_TRY(progress.advance(piece.size()));
    }
  }
  return {};
}

Result<void> resize_file_system(File& disk, uint64_t size) {
  OBD_TRY_ASSIGN(const std::string e2fsck, tool::find_program("e2fsck"));
  OBD_TRY_ASSIGN(const std::string resize2fs, tool::find_program("resize2fs"));
  // 1: errors that were corrected, as after a host that went down.
  OBD_TRY_ASSIGN(const int checked, tool::run_program({e2fsck, "-f", "-p", disk.path()}));
  if (checked > 1) {
    return fail(EIO, "e2fsck failed with exit status {}: is there an ext4 right on the disk?",
                checked);
  }
  OBD_TRY_ASSIGN(const FileInfo info, disk.info());
  if (info.size < size) OBD_TRY(disk.truncate(size));
  OBD_TRY_ASSIGN(const int resized, tool::run_program({resize2fs, disk.path(),
                                                       fmt::format("{}s", size / kSectorSize)}));
  if (resized != 0) {
    return fail(EIO, "resize2fs failed with exit status {}: its own message is above", resized);
  }
  return disk.truncate(size);
}

// The chunks of the disk in which either side holds data, in order.
Result<std::vector<uint64_t>> chunks_with_data(const Image& image, const File& disk) {
  std::vector<uint64_t> chunks;
  const auto add = [&](uint64_t offset, uint64_t length) {
    for (uint64_t chunk = offset / kChunk; chunk * kChunk < offset + length; ++chunk) {
      chunks.push_back(chunk);
    }
  };
  OBD_TRY_ASSIGN(const auto runs, tool::data_runs(disk));
  for (const ByteRange& run : runs) add(run.offset, run.length);
  OBD_TRY(image.extents(0, image.size(), [&](const ImageExtent& extent) {
    if (extent.kind == ExtentKind::data) add(extent.offset, extent.length);
    return true;
  }));
  std::ranges::sort(chunks);
  const auto duplicates = std::ranges::unique(chunks);
  chunks.erase(duplicates.begin(), duplicates.end());
  return chunks;
}

// Makes the image's disk equal to the file, block by block where they differ.
Result<void> copy_differences(const File& disk, Image& image) {
  OBD_TRY_ASSIGN(const auto chunks, chunks_with_data(image, disk));
  tool::Progress progress("writing", chunks.size() * kChunk);
  std::vector<std::byte> wanted(kChunk);
  std::vector<std::byte> present(kChunk);
  for (const uint64_t chunk : chunks) {
    const uint64_t begin = chunk * kChunk;
    if (begin >= image.size()) break;
    const size_t length = static_cast<size_t>(std::min(kChunk, image.size() - begin));
    OBD_TRY(read_exactly(disk, std::span(wanted).first(length), begin));
    OBD_TRY(image.read(std::span(present).first(length), begin));
    for (size_t at = 0; at < length; at += kBlockSize) {
      const auto block = std::span(wanted).subspan(at, std::min<size_t>(kBlockSize, length - at));
      if (std::memcmp(block.data(), &present[at], block.size()) == 0) continue;
      OBD_TRY(is_all_zero(block) ? image.zero(begin + at, block.size())
                                 : image.write(block, begin + at));
    }
    OBD_TRY(progress.advance(kChunk));
  }
  return {};
}

// Step 1 and 2.
Result<void> make_new_upper(FileSystem& fs, const ImageConfig& config, uint64_t size) {
  // Open for writing until the config has been replaced, so that nobody else changes it; opening
  // alone changes nothing.
  OBD_TRY_ASSIGN(const auto old, Image::open(fs, config, {.access = Access::read_write}));
  OBD_TRY_ASSIGN(const auto layers, old->layers());
  // Never finished, so it goes away with this function.
  OBD_TRY_ASSIGN(auto disk, OutputFile::create(fs, config.upper->data, 0600, true));
  OBD_TRY(export_disk(*old, disk.file()));
  OBD_TRY(resize_file_system(disk.file(), size));

  NewLayer layer;
  layer.kind = layers.back().kind == "sparse" ? UpperKind::sparse : UpperKind::append;
  layer.virtual_size = size;
  layer.uuid = layers.back().uuid;
  layer.parent_uuid = layers.back().parent_uuid;
  ImageConfig next = config;
  next.upper = UpperConfig{config.upper->data + std::string(kNewSuffix),
                           config.upper->index + std::string(kNewSuffix)};
  OBD_TRY(create_writable_layer(fs, next.upper->data, next.upper->index, layer));
  OBD_TRY_ASSIGN(const auto image, Image::open(fs, next, {.access = Access::read_write}));
  OBD_TRY(copy_differences(disk.file(), *image));
  OBD_TRY(image->flush());
  OBD_TRY(image->close());
  OBD_TRY_ASSIGN(const UpperConfig written, upper_as_written(fs, config.path));
  return replace_upper(
      fs, config.path,
      {written.data + std::string(kNewSuffix), written.index + std::string(kNewSuffix)});
}

Result<uint64_t> parse_gigabytes(const std::string& text) {
  uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9' || value > kMaxDiskSize / kGiB) {
      return fail(EINVAL, "--size: '{}' is no number of GB that a disk can have", text);
    }
    value = 10 * value + static_cast<uint64_t>(c - '0');
  }
  if (value == 0 || value > kMaxDiskSize / kGiB) {
    return fail(EINVAL, "--size: '{}' is no number of GB that a disk can have", text);
  }
  return value;
}

Result<int> resize(const ResizeArguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(const uint64_t gigabytes, parse_gigabytes(arguments.size));
  OBD_TRY(finish_earlier(fs, arguments.config));
  OBD_TRY_ASSIGN(const ImageConfig config, load_config(fs, arguments.config));
  auto made = make_new_upper(fs, config, gigabytes * kGiB);
  // Either way: goes on after step 2, or clears away what failed before it.
  auto finished = finish_earlier(fs, arguments.config);
  OBD_TRY(made);
  OBD_TRY(finished);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  fmt::print("Success: filesystem resized to {} GB ({:.3f} seconds)\n", gigabytes, elapsed.count());
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
      "No server may have the image open. The upper is written anew, so the host needs room for\n"
      "another one, and for a sparse export of the disk, until the command has ended.\n\n"
      "Example:\n"
      "  overlaybd-resize --config config.v1.json --size 128");
  return run(app, argc, argv, kResizeFailure, [&] { return resize(arguments); });
}

}  // namespace
}  // namespace obd::compat

int main(int argc, char** argv) { return obd::compat::main(argc, argv); }
