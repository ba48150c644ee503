// obd compact: gives back the space that dead data holds in the writable layer of an image.

#include "core/image/compact.h"

#include <memory>

#include "tools/obd/command.h"
#include "tools/obd/common.h"
#include "tools/obd/layer_json.h"
#include "tools/obd/progress.h"
#include "tools/obd/size_text.h"

namespace obd::tool {
namespace {

struct CompactOptions {
  std::string image;
  bool json = false;
};

Result<int> run_compact(const CompactOptions& options) {
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(const Target target, find_image(fs, options.image));
  OBD_TRY_ASSIGN(const CompactReport done, compact_image(fs, target.path, progress_lines()));
  const uint64_t before = done.before.allocated_bytes;
  const uint64_t after = done.after.allocated_bytes;
  const uint64_t freed = before - std::min(before, after);
  if (options.json) {
    const Json json = {{"image", target.path},           {"changed", done.changed},
                       {"freed_bytes", freed},           {"moved_bytes", done.moved},
                       {"zeroed_bytes", done.zeroed},    {"before", layer_json(done.before)},
                       {"after", layer_json(done.after)}};
    fmt::print("{}\n", json_text(json, 2));
    return kExitSuccess;
  }
  for (const std::string& sentence : done.after.warnings) warn(sentence);
  if (!done.changed) {
    fmt::print("nothing to compact: {} has no space to give back\n", done.after.path);
    return kExitSuccess;
  }
  std::string zeroed;
  if (done.zeroed != 0) zeroed = fmt::format("; {} of data were zeros", human_size(done.zeroed));
  fmt::print("compacted {}: gave back {}, takes {} for {} of data{}\n", done.after.path,
             human_size(freed), human_size(after), human_size(done.after.data_bytes), zeroed);
  return kExitSuccess;
}

}  // namespace

void add_compact(CLI::App& app, Runner& chosen) {
  const auto options = std::make_shared<CompactOptions>();
  CLI::App* command = app.add_subcommand(
      "compact", "Gives back the space that dead data holds in the writable layer");
  command->add_option("IMAGE", options->image, "config.v1.json, or the folder that holds it")
      ->required();
  command->add_flag("--json", options->json, "Print JSON, sizes in bytes");
  command->footer(
      "Works in place and needs no space for a second copy. Blocks that hold nothing but\n"
      "zeros are given back, too, so all data is read. No server may have the image open.\n"
      "Interrupting it does no harm: the disk stays the same at every moment.\n\n"
      "Examples:\n"
      "  obd compact disk\n"
      "  obd info disk          how much is dead");
  command->callback([options, &chosen] { chosen = [options] { return run_compact(*options); }; });
}

}  // namespace obd::tool
