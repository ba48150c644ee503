// obd merge: one sealed layer from several.

#include <charconv>
#include <memory>

#include "core/image/merge.h"
#include "tools/obd/command.h"
#include "tools/obd/common.h"
#include "tools/obd/layer_arguments.h"
#include "tools/obd/layer_json.h"
#include "tools/obd/progress.h"

namespace obd::tool {
namespace {

struct MergeArguments {
  std::vector<std::string> sources;
  std::string range;
  LayerArguments layer;
  bool json = false;
  // What these come to:
  MergeOptions options;
  LayerOutput output;
};

// "A..B", counted from 0, both included.
Result<LowerRange> parse_range(const std::string& text) {
  const auto parse = [](std::string_view digits, size_t& number) {
    const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    return code == std::errc() && end == digits.data() + digits.size();
  };
  LowerRange range;
  const size_t dots = text.find("..");
  if (dots == std::string::npos || !parse(std::string_view(text).substr(0, dots), range.first) ||
      !parse(std::string_view(text).substr(dots + 2), range.last)) {
    return fail(EINVAL,
                "--range: '{}' is no range: write the numbers of its lowest and its topmost lower, "
                "counted from 0, as in 0..3",
                text);
  }
  if (range.first > range.last) return fail(EINVAL, "--range: {} runs backwards", text);
  return range;
}

// What is to be merged: an image, or layers that are no image yet.
Result<Target> find_sources(FileSystem& fs, const std::vector<std::string>& sources) {
  OBD_TRY_ASSIGN(Target stack, find_target(fs, sources.front()));
  if (sources.size() == 1) return stack;
  stack.config.lowers.clear();
  for (const std::string& source : sources) {
    OBD_TRY_ASSIGN(const Target layer, find_target(fs, source));
    if (layer.is_image) {
      return fail(EINVAL, "{}: is an image: name one image alone, or the files of sealed layers",
                  layer.path);
    }
    stack.config.lowers.push_back(layer.path);
  }
  return stack;
}

Result<int> run_merge(const MergeArguments& arguments) {
  FileSystem& fs = posix_file_system();
  OBD_TRY_ASSIGN(const Target target, find_sources(fs, arguments.sources));
  MergeOptions options = arguments.options;
  options.at_bottom = target.is_image;
  if (options.range && !target.is_image) {
    return fail(EINVAL, "--range: is for the lowers of an image; name the layers to merge");
  }
  OBD_TRY(refuse_taken(fs, arguments.output.path, arguments.layer.force));
  OBD_TRY_ASSIGN(const LayerInfo layer,
                 merge_layers(fs, target.config, options, arguments.output, progress_lines()));

  std::vector<std::string> replaced;
  if (options.replace) {
    const auto first = target.config.lowers.begin();
    replaced.assign(first + static_cast<ptrdiff_t>(options.range->first),
                    first + static_cast<ptrdiff_t>(options.range->last) + 1);
  }
  if (arguments.json) {
    const Json json = {{"layer", layer_json(layer)}, {"replaced", replaced}};
    fmt::print("{}\n", json_text(json, 2));
    return kExitSuccess;
  }
  for (const std::string& sentence : layer.warnings) warn(sentence);
  fmt::print("created {}: {}\n", layer.path, layer_summary(layer));
  if (!replaced.empty()) {
    fmt::print("{} now has it in place of:\n", target.path);
    for (const std::string& path : replaced) fmt::print("  {}\n", path);
  }
  return kExitSuccess;
}

}  // namespace

void add_merge(CLI::App& app, Runner& chosen) {
  const auto arguments = std::make_shared<MergeArguments>();
  CLI::App* command = app.add_subcommand("merge", "Makes one sealed layer equal to several");
  command
      ->add_option("IMAGE|LAYER", arguments->sources,
                   "An image, or files of sealed layers, the bottom one first")
      ->required();
  CLI::Option* range =
      command
          ->add_option("--range", arguments->range,
                       "Merge only these lowers of the image: 0 is the bottom one, both\n"
                       "ends are included")
          ->type_name("A..B");
  command
      ->add_flag("--replace", arguments->options.replace,
                 "Put the new layer into the image's config in place of the range")
      ->needs(range);
  add_layer_arguments(*command, arguments->layer,
                      "a random one; with --replace that of\nthe topmost layer merged",
                      "that of the\nbottom layer merged");
  command->add_flag("--json", arguments->json, "Print JSON, sizes in bytes");
  command->footer(
      "An image is merged whole, its writable layer included, unless --range says less.\n"
      "Blocks of zeros take no space. The merged layers stay where they are. No server\n"
      "may write to the image meanwhile, but the lowers of one that is being served can be\n"
      "merged without --replace.\n\n"
      "Examples:\n"
      "  obd merge disk -o all.lsmt\n"
      "  obd merge one.lsmt two.lsmt three.lsmt -o middle.lsmt\n"
      "  obd merge disk --range 0..3 --replace -o disk/base.lsmt    a shorter stack");
  command->callback([arguments, &chosen] {
    if (!arguments->range.empty()) {
      arguments->options.range = or_usage_error(parse_range(arguments->range));
    }
    arguments->output = or_usage_error(layer_output(arguments->layer));
    chosen = [arguments] { return run_merge(*arguments); };
  });
}

}  // namespace obd::tool
