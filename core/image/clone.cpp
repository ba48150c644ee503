#include "core/image/clone.h"

#include "core/image/seal.h"

namespace obd {
namespace {

// Files that are removed again unless a config came to name them.
class MadeFiles {
 public:
  explicit MadeFiles(FileSystem& fs) : fs_(fs) {}
  ~MadeFiles() {
    // The error that led here is being told; what cannot be removed is in nobody's way.
    for (const std::string& file : files_) (void)fs_.remove(file);
  }
  MadeFiles(const MadeFiles&) = delete;
  MadeFiles& operator=(const MadeFiles&) = delete;

  Result<void> make(const UpperConfig& upper, const NewLayer& layer) {
    OBD_TRY(create_writable_layer(fs_, upper.data, upper.index, layer));
    files_.insert(files_.end(), {upper.data, upper.index});
    return {};
  }
  void keep() { files_.clear(); }

 private:
  FileSystem& fs_;
  std::vector<std::string> files_;
};

std::string beside(const std::string& file, std::string_view name) {
  return fmt::format("{}/{}", directory_of(file), name);
}

Result<void> refuse_taken(FileSystem& fs, const std::string& path) {
  OBD_TRY_ASSIGN(const bool taken, fs.exists(path));
  return taken ? Result<void>(fail(EEXIST, "{}: exists already: choose another folder", path))
               : Result<void>();
}

// The source, opened for writing and thereby locked, and known to open as a whole.
struct Source {
  ImageConfig config;
  std::unique_ptr<WritableLayer> upper;
  Uuid top_uuid;  // of the topmost lower; nil when there is none
};

Result<Source> open_source(FileSystem& fs, const std::string& path) {
  Source source;
  OBD_TRY_ASSIGN(source.config, load_config(fs, path));
  const ImageConfig& config = source.config;
  if (!config.upper) {
    return fail(EINVAL,
                "{}: the image has no upper; make another image over its lowers (obd "
                "create --from {})",
                path, path);
  }
  WritableLayer::Options options;
  if (!config.lowers.empty()) {
    ImageConfig lowers = config;
    lowers.upper.reset();
    OBD_TRY_ASSIGN(const auto image, Image::open(fs, lowers, {.access = Access::read_only}));
    OBD_TRY_ASSIGN(const auto layers, image->layers());
    options.lowers_size = image->size();
    source.top_uuid = layers.back().uuid;
  }
  auto upper = WritableLayer::open(fs, config.upper->data, config.upper->index, options);
  if (!upper) {
    return std::unexpected(explain_missing_file(fs, config, std::move(upper).error()));
  }
  source.upper = std::move(*upper);
  OBD_TRY(refuse_changed_config(fs, config));
  OBD_TRY(Image::open(fs, config, {.access = Access::read_only, .force_share = true}));
  return source;
}

// The source's next upper lies where its last one does. The usual names, if they are free.
Result<UpperConfig> next_upper(FileSystem& fs, const UpperConfig& old, const Uuid& uuid) {
  UpperConfig next{beside(old.data, kUpperDataName), beside(old.index, kUpperIndexName)};
  OBD_TRY_ASSIGN(const bool data_taken, fs.exists(next.data));
  OBD_TRY_ASSIGN(const bool index_taken, fs.exists(next.index));
  if (data_taken || index_taken) {
    const std::string suffix = "-" + uuid.text().substr(0, 8);
    next.data += suffix;
    next.index += suffix;
  }
  return next;
}

}  // namespace

Result<CloneReport> clone_image(FileSystem& fs, const std::string& source_path,
                                const std::string& clone_path) {
  ImageConfig clone;
  clone.path = clone_path;
  clone.upper =
      UpperConfig{beside(clone_path, kUpperDataName), beside(clone_path, kUpperIndexName)};
  for (const std::string& path : {clone.path, clone.upper->data, clone.upper->index}) {
    OBD_TRY(refuse_taken(fs, path));
  }
  OBD_TRY_ASSIGN(const Source source, open_source(fs, source_path));
  WritableLayer& upper = *source.upper;
  const bool shares_upper = upper.sealed_in_place() || upper.stats().extents != 0;
  if (shares_upper) OBD_TRY(refuse_full_stack(source.config));

  CloneReport done;
  done.size = upper.virtual_size();
  NewLayer layer;
  layer.kind = upper.kind();
  layer.virtual_size = upper.virtual_size();
  layer.parent_uuid = shares_upper ? upper.header().uuid : source.top_uuid;
  layer.uuid = Uuid::random();
  MadeFiles made_for_clone(fs);
  OBD_TRY(made_for_clone.make(*clone.upper, layer));

  clone.lowers = source.config.lowers;
  if (shares_upper) {
    const UpperConfig& old = *source.config.upper;
    layer.uuid = Uuid::random();
    OBD_TRY_ASSIGN(const UpperConfig next, next_upper(fs, old, layer.uuid));
    MadeFiles made_for_source(fs);
    OBD_TRY(made_for_source.make(next, layer));
    UpperConfig named;
    OBD_TRY_ASSIGN(named.data, name_in_config(fs, next.data, source_path));
    OBD_TRY_ASSIGN(named.index, name_in_config(fs, next.index, source_path));
    auto sealed = seal_upper(fs, source.config, upper, named);
    // Which config is in force decides whose files these are, whatever failed on the way.
    const auto config = load_config(fs, source_path);
    const bool still_old = config && config->upper && config->upper->data == old.data;
    if (!still_old) made_for_source.keep();
    if (!sealed) return std::unexpected<Error>(std::move(sealed).error());
    done.warnings = std::move(*sealed);
    done.sealed = old.data;
    clone.lowers.push_back(old.data);
  }

  // A copy of the clone's folder is to be an image of its own, so its own files are named within
  // it.
  for (std::string& lower : clone.lowers) {
    OBD_TRY_ASSIGN(lower, fs.canonical(lower));
  }
  done.lowers = clone.lowers.size();
  clone.upper = UpperConfig{std::string(kUpperDataName), std::string(kUpperIndexName)};
  auto saved = save_config(fs, clone);
  OBD_TRY_ASSIGN(const bool named, fs.exists(clone.path));
  if (named) made_for_clone.keep();
  OBD_TRY(saved);
  return done;
}

}  // namespace obd
