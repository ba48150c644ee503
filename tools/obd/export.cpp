// obd export: a sparse raw disk with the content of an image.

#include <memory>
#include <vector>

#include "core/io/output_file.h"
#include "tools/obd/command.h"
#include "tools/obd/common.h"
#include "tools/obd/data_runs.h"
#include "tools/obd/progress.h"
#include "tools/obd/size_text.h"

namespace obd::tool {
namespace {

struct ExportOptions {
  std::string image;
  std::string raw;
  bool force = false;
  bool json = false;
};

Result<std::vector<ByteRange>> data_ranges(const Image& image) {
  std::vector<ByteRange> ranges;
  OBD_TRY(image.extents(0, image.size(), [&](const ImageExtent& extent) {
    if (extent.kind != ExtentKind::data) return true;
    if (!ranges.empty() && ranges.back().offset + ranges.back().length == extent.offset) {
      ranges.back().length += extent.length;
    } else {
      ranges.push_back({extent.offset, extent.length});
    }
    return true;
  }));
  return ranges;
}

// Writes the image into a new file, whose size is set already; returns how many bytes were not
// zero.
Result<uint64_t> copy_image(const Image& image, File& raw) {
  OBD_TRY_ASSIGN(const auto ranges, data_ranges(image));
  uint64_t total = 0;
  for (const ByteRange& range : ranges) total += range.length;
  Progress progress("exporting", total);
  uint64_t written = 0;
  const DataSink sink = [&](uint64_t offset, std::span<const std::byte> data) {
    written += data.size();
    return raw.write_at(data, offset);
  };
  std::vector<std::byte> buffer(kCopyBufferSize);
  for (const ByteRange& range : ranges) {
    for (uint64_t done = 0; done < range.length;) {
      const std::span<std::byte> chunk(buffer.data(),
                                       std::min<uint64_t>(range.length - done, buffer.size()));
      OBD_TRY(image.read(chunk, range.offset + done));
      OBD_TRY(skip_zero_blocks(range.offset + done, chunk, sink));
      OBD_TRY(progress.advance(chunk.size()));
      done += chunk.size();
    }
  }
  return written;
}

Result<int> run_export(const ExportOptions& options) {
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(const Target target, find_target(fs, options.image));
  if (is_block_device(options.raw)) {
    return fail(EINVAL,
                "{}: is a block device, and export makes files: "
                "nbdcopy -- [ nbdkit -r overlaybd {} ] {} writes it",
                options.raw, shell_quoted(target.path), shell_quoted(options.raw));
  }
  OBD_TRY(refuse_taken(fs, options.raw, options.force));
  OBD_TRY_ASSIGN(const auto image, open_to_look(fs, target, false));
  OBD_TRY_ASSIGN(const bool taken, fs.exists(options.raw));
  if (taken) {
    OBD_TRY_ASSIGN(const auto own, image_file_at(fs, image->config(), options.raw));
    if (own) return fail(EINVAL, "{}: is a part of the image that is to be exported", *own);
  }

  OBD_TRY_ASSIGN(auto output, OutputFile::create(fs, options.raw, 0644, options.force));
  OBD_TRY(output.file().truncate(image->size()));
  OBD_TRY_ASSIGN(const uint64_t written, copy_image(*image, output.file()));
  OBD_TRY(output.finish());
  OBD_TRY(image->close());
  if (options.json) {
    const Json json = {{"source", target.path},
                       {"raw", options.raw},
                       {"virtual_size", image->size()},
                       {"data_bytes", written}};
    fmt::print("{}\n", json_text(json, 2));
    return kExitSuccess;
  }
  fmt::print("created {}: disk of {}, {} of data\n", options.raw, human_size(image->size()),
             human_size(written));
  return kExitSuccess;
}

}  // namespace

void add_export(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<ExportOptions>();
  CLI::App* command = app.add_subcommand("export", "Writes an image as a sparse raw disk");
  command
      ->add_option("IMAGE|LAYER", options->image,
                   "config.v1.json, the folder that holds it, or a sealed layer's file")
      ->required();
  command->add_option("-o,--output", options->raw, "The raw disk to make")->required();
  command->add_flag("-f,--force", options->force, "Replace an existing file");
  command->add_flag("--json", options->json, "Print JSON, sizes in bytes");
  command->footer(
      "The file appears under its name only when it is whole.\n\n"
      "Examples:\n"
      "  obd export disk -o disk.raw\n"
      "  obd export base.lsmt -o base.raw --force");
  command->callback([options, &chosen] {
    or_usage_error(refuse_stream("--output", options->raw));
    chosen = [options] { return run_export(*options); };
  });
}

}  // namespace obd::tool
