// Sealing an image: its writable layer becomes its topmost sealed layer, in place.
//
//   0. the config is locked, and found to be what was seen: whatever refuses that leaves a writable
//      layer as it was
//   1. the index is appended to the data file and synced, then the trailer, and synced
//   2. the config is replaced by one that lists the file among the lowers and has no upper, or the
//      next one, whose files are there already
//   3. the index log is removed
//
// After a crash before 1 is stable, the pair is still a writable layer (what lies behind its data
// is dead space). Between 1 and 2 the data file is sealed while the config still calls it the
// upper: opening it for writing is refused, and sealing again goes on from there. After 2 the image
// is whole; a left-over index log is never looked at.

#include "core/image/seal.h"

#include "core/io/output_file.h"

namespace obd {

Result<void> refuse_full_stack(const ImageConfig& config) {
  if (config.lowers.size() < kMaxLowers) return {};
  return fail(EINVAL, "{}: the image has {} lowers already, and {} are the most; merge some first",
              config.path, config.lowers.size(), kMaxLowers);
}

Result<std::vector<std::string>> seal_upper(FileSystem& fs, const ImageConfig& config,
                                            WritableLayer& upper,
                                            const std::optional<UpperConfig>& next) {
  if (!upper.sealed_in_place()) OBD_TRY(upper.refuse_other_names("sealing it"));
  // Until the config is replaced: who cannot change it must not seal what it calls the upper.
  OBD_TRY_ASSIGN(auto lock, ConfigLock::take(fs, config));
  // Nor who cannot put another file in its place: a name that comes and goes tells.
  OBD_TRY(OutputFile::create(fs, config.path, 0600, true));
  std::vector<std::string> warnings = upper.warnings();
  if (!upper.sealed_in_place()) {
    OBD_TRY(upper.flush());
    while (upper.has_stale_space()) upper.release_stale_space();
  }
  OBD_TRY(upper.seal());
  if (const uint64_t extents = upper.stats().extents; extents > lsmt::kMaxUpstreamEntries) {
    warnings.push_back(fmt::format("{}: {} index entries are more than the {} that overlaybd opens",
                                   config.upper->data, extents, lsmt::kMaxUpstreamEntries));
  }
  // The log is given up only for a layer that opens.
  OBD_TRY(SealedLayer::open(fs, config.upper->data));
  OBD_TRY(lock.turn_upper_into_lower(next));
  OBD_TRY(fs.remove(upper.index_path()));
  OBD_TRY(fs.sync_directory(directory_of(upper.index_path())));
  return warnings;
}

Result<std::vector<std::string>> seal_image(FileSystem& fs, const std::string& config_path) {
  OBD_TRY_ASSIGN(const ImageConfig config, load_config(fs, config_path));
  if (!config.upper) {
    return fail(EINVAL, "{}: the image has no upper that could be sealed", config_path);
  }
  OBD_TRY(refuse_full_stack(config));
  uint64_t size = 0;
  {
    // The whole image, so that nothing is sealed onto lowers that do not open.
    OpenOptions look;
    look.access = Access::read_only;
    const auto image = Image::open(fs, config, look);
    if (!image) return std::unexpected(explain_missing_file(fs, config, image.error()));
    size = (*image)->size();
  }
  WritableLayer::Options options;
  options.lowers_size = size;
  auto upper = WritableLayer::open(fs, config.upper->data, config.upper->index, options);
  if (!upper) {
    return std::unexpected(explain_missing_file(fs, config, std::move(upper).error()));
  }
  return seal_upper(fs, config, **upper, std::nullopt);
}

}  // namespace obd
