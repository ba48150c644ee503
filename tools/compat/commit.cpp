// overlaybd-commit: a sealed layer from a writable one, or the writable one sealed in place.

#include <fmt/format.h>

#include <cerrno>

#include "core/image/commit.h"
#include "core/image/merge.h"
#include "tools/compat/compat.h"
#include "tools/obd/common.h"
#include "tools/obd/progress.h"

namespace obd::compat {
namespace {

struct CommitArguments {
  std::string message;
  std::string uuid;
  std::string parent_uuid;
  bool compress = false;
  bool tar = false;
  bool force = false;
  bool seal = false;
  bool commit_sealed = false;
  CompressionArguments compression;
  unsigned threads = 1;
  std::string data;
  std::string index;
  std::string output;
};

// The size of a layer that has none is its lowers', and here there are none: what it holds would be
// cut off.
Result<void> refuse_data_without_size(const WritableLayer& layer) {
  if (layer.virtual_size() != 0) return {};
  OBD_TRY_ASSIGN(const FileInfo info, layer.data_file().info());
  if (info.size <= lsmt::kHeaderSize) return {};
  return fail(EINVAL,
              "{}: virtual_size is 0, but there is data: open it once for writing in an image with "
              "its lowers, which gives it their size",
              layer.data_file().path());
}

// The index file stays, as overlaybd's does: the caller removes it.
Result<int> seal(FileSystem& fs, const CommitArguments& arguments) {
  OBD_TRY_ASSIGN(const auto layer, WritableLayer::open(fs, arguments.data, arguments.index, {}));
  OBD_TRY(refuse_data_without_size(*layer));
  for (const std::string& sentence : layer->warnings()) tool::warn(sentence);
  if (!layer->sealed_in_place()) {
    OBD_TRY(layer->flush());
    while (layer->has_stale_space()) layer->release_stale_space();
  }
  OBD_TRY(layer->seal());
  OBD_TRY_ASSIGN(const auto sealed, SealedLayer::open(fs, arguments.data));
  for (const std::string& sentence : sealed->warnings()) tool::warn(sentence);
  return 0;
}

Result<LayerOutput> plan_output(const CommitArguments& arguments) {
  LayerOutput output{.path = arguments.commit_sealed ? arguments.index : arguments.output};
  if (output.path.empty()) return fail(EINVAL, "commit_file: is missing: name the layer to make");
  output.options.user_tag = arguments.message;
  output.options.overwrite = arguments.force;
  if (arguments.compress) {
    OBD_TRY_ASSIGN(output.options.blob, compressed(arguments.compression));
    output.options.blob.tar = arguments.tar;
    output.options.blob.threads = arguments.threads;
  } else if (!arguments.compression.algorithm.empty() || arguments.tar) {
    tool::warn("'-t', '--bs' and '--algorithm' are ignored without '-z'");
  }
  OBD_TRY_ASSIGN(output.uuid, tool::parse_uuid_option("--uuid", arguments.uuid, Uuid()));
  if (!arguments.parent_uuid.empty()) {
    OBD_TRY_ASSIGN(output.parent_uuid,
                   tool::parse_uuid_option("--parent-uuid", arguments.parent_uuid, Uuid()));
  }
  OBD_TRY(tool::refuse_taken(posix_file_system(), output.path, arguments.force));
  return output;
}

Result<LayerInfo> commit_layer(FileSystem& fs, const CommitArguments& arguments,
                               LayerOutput output) {
  ImageConfig config;
  config.path = arguments.data;
  if (arguments.commit_sealed) {
    config.lowers = {arguments.data};
    return merge_layers(fs, config, {.range = {}, .at_bottom = false, .replace = false}, output,
                        tool::progress_lines());
  }
  if (arguments.index.empty()) return fail(EINVAL, "index_file: is missing");
  config.upper = UpperConfig{arguments.data, arguments.index};
  {
    const WritableLayer::Options look{.access = Access::read_only};
    OBD_TRY_ASSIGN(const auto layer,
                   WritableLayer::open(fs, arguments.data, arguments.index, look));
    OBD_TRY(refuse_data_without_size(*layer));
    if (!output.parent_uuid) output.parent_uuid = layer->header().parent_uuid;
  }
  return commit_upper(fs, config, output, tool::progress_lines());
}

Result<int> commit(const CommitArguments& arguments) {
  FileSystem& fs = posix_file_system();
  if (arguments.seal) {
    if (arguments.index.empty()) return fail(EINVAL, "index_file: is missing");
    return seal(fs, arguments);
  }
  OBD_TRY_ASSIGN(const LayerOutput output, plan_output(arguments));
  OBD_TRY_ASSIGN(const LayerInfo layer, commit_layer(fs, arguments, output));
  for (const std::string& sentence : layer.warnings) tool::warn(sentence);
  fmt::print("overlaybd-commit has committed files SUCCESSFULLY\n");
  return 0;
}

int main(int argc, char** argv) {
  CLI::App app("Makes a sealed layer from a writable one", "overlaybd-commit");
  CommitArguments arguments;
  const std::string turbo = "turboOCI layers are not supported";
  app.add_option("-m", arguments.message, "Text to keep in the layer");
  app.add_option("--uuid", arguments.uuid, "The layer's UUID (default: none)");
  app.add_option("-p,--parent-uuid", arguments.parent_uuid,
                 "UUID of the layer below (default: what the writable layer says)");
  app.add_flag("-z", arguments.compress, "Compress it as a ZFile");
  app.add_flag("-t", arguments.tar, "Wrap the ZFile in a tar file");
  app.add_flag("-f", arguments.force, "Replace an existing layer");
  add_compression(app, arguments.compression);
  add_refused_flag(app, "--turboOCI", turbo);
  add_refused_flag(app, "--fastoci", turbo);
  app.add_option("data_file", arguments.data, "The layer's data file")->required();
  app.add_option("index_file", arguments.index,
                 "Its index file; with --commit_sealed the layer to make");
  app.add_option("commit_file", arguments.output, "The layer to make");
  app.add_flag("--seal", arguments.seal, "Seal data_file in place");
  app.add_flag("--commit_sealed", arguments.commit_sealed, "data_file is sealed already")
      ->excludes("--seal");
  app.add_option("--compress_threads", arguments.threads, "How many compress (default: 1)")
      ->check(CLI::Range(1U, 1024U));
  add_verbose(app);
  add_refused_upload(app);
  app.footer(
      "Examples:\n"
      "  overlaybd-commit writable_data writable_index layer.commit -z -t\n"
      "  overlaybd-commit --seal writable_data writable_index\n"
      "  overlaybd-commit --commit_sealed overlaybd.sealed layer.commit -z");
  return run(app, argc, argv, kFailure, [&] { return commit(arguments); });
}

}  // namespace
}  // namespace obd::compat

int main(int argc, char** argv) { return obd::compat::main(argc, argv); }
