#include "core/image/update.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "core/base/zeros.h"
#include "core/format/log_marker.h"
#include "core/layer/layer_writer.h"

namespace obd {
namespace {

constexpr uint64_t kPiece = uint64_t{1} << 20;
// Tells an update from other layers, for people and for open_for_update().
constexpr std::string_view kUpdateTag = "update of the layer that parent_uuid names";

Result<LayerInfo> describe_upper(const Image& image) {
  OBD_TRY_ASSIGN(auto layers, image.layers());
  return std::move(layers.back());
}

// An update, open as the only layer of an image.
struct Update {
  std::unique_ptr<Image> content;
  LayerInfo layer;
};

Result<Update> open_update(FileSystem& fs, const std::string& path) {
  ImageConfig config;
  config.path = path;
  config.lowers = {path};
  Update update;
  OBD_TRY_ASSIGN(update.content, Image::open(fs, config, {.access = Access::read_only}));
  OBD_TRY_ASSIGN(auto layers, update.content->layers());
  update.layer = std::move(layers.front());
  return update;
}

bool belongs_to(const Update& update, const LayerInfo& upper) {
  return update.layer.user_tag == kUpdateTag && update.layer.parent_uuid == upper.uuid;
}

Result<void> remove_file(FileSystem& fs, const std::string& path) {
  OBD_TRY(fs.remove(path));
  return fs.sync_directory(directory_of(path));
}

Result<void> remove_left_over(FileSystem& fs, Image& image, const std::string& path) {
  const auto update = open_update(fs, path);
  OBD_TRY_ASSIGN(const LayerInfo upper, describe_upper(image));
  if (!update || !belongs_to(*update, upper)) {
    return fail(EEXIST,
                "{}: this name is needed for the update of {}, and the file that has it is none{}; "
                "move it away",
                path, upper.path, update ? "" : " (" + update.error().message + ")");
  }
  // Among what the log lost may be that the update has begun.
  if (!image.losses().empty()) {
    return fail(
        EUCLEAN,
        "{}: whether {} was being changed by it cannot be told, because the index log is "
        "damaged ({}); restore the log from a copy, or, if the disk is as you want it, move "
        "the update away",
        path, upper.path, image.losses().front());
  }
  // Its end may be in the host's cache only; while it is not stable, the update may be needed.
  OBD_TRY(image.flush());
  return remove_file(fs, path);
}

// Those pieces of the disk in which it or the file holds data, in order, by their number.
Result<std::vector<uint64_t>> pieces_with_data(const Image& image, const File& wanted,
                                               uint64_t length) {
  std::vector<uint64_t> pieces;
  const auto add = [&](uint64_t offset, uint64_t end) {
    for (uint64_t piece = offset / kPiece; piece * kPiece < std::min(end, length); ++piece) {
      if (pieces.empty() || pieces.back() != piece) pieces.push_back(piece);
    }
  };
  OBD_TRY(image.extents(0, std::min(length, image.size()), [&](const ImageExtent& extent) {
    if (extent.kind == ExtentKind::data) add(extent.offset, extent.offset + extent.length);
    return true;
  }));
  for (uint64_t from = 0; from < length;) {
    OBD_TRY_ASSIGN(const auto run, wanted.next_data(from));
    if (!run) break;
    from = run->offset + run->length;
    add(run->offset, from);
  }
  std::ranges::sort(pieces);
  const auto twice = std::ranges::unique(pieces);
  pieces.erase(twice.begin(), twice.end());
  return pieces;
}

enum class Difference { none, zeros, data };

Difference compare(std::span<const std::byte> present, std::span<const std::byte> wanted) {
  if (std::memcmp(present.data(), wanted.data(), wanted.size()) == 0) return Difference::none;
  return is_all_zero(wanted) ? Difference::zeros : Difference::data;
}

// Calls `act(difference, begin, end)` for each run of whole blocks that differ.
template <typename Act>
Result<void> for_each_difference(std::span<const std::byte> present,
                                 std::span<const std::byte> wanted, const Act& act) {
  const auto difference_at = [&](size_t at) {
    const size_t block = std::min<size_t>(kBlockSize, wanted.size() - at);
    return compare(present.subspan(at, block), wanted.subspan(at, block));
  };
  for (size_t at = 0; at < wanted.size();) {
    const Difference difference = difference_at(at);
    const size_t begin = at;
    do at += std::min<size_t>(kBlockSize, wanted.size() - at);
    while (at < wanted.size() && difference_at(at) == difference);
    if (difference != Difference::none) OBD_TRY(act(difference, begin, at));
  }
  return {};
}

Result<void> add_differences(LayerWriter& writer, uint64_t offset,
                             std::span<const std::byte> present,
                             std::span<const std::byte> wanted) {
  return for_each_difference(
      present, wanted, [&](Difference difference, size_t begin, size_t end) -> Result<void> {
        const Sectors logical = Sectors::floor(offset + begin);
        if (difference == Difference::zeros) {
          return writer.append_zero(logical, Sectors::floor(end - begin));
        }
        return writer.append_data(logical, wanted.subspan(begin, end - begin));
      });
}

// What is there already is not written again: a second attempt on a full host needs no more space
// than what the first one lacked.
Result<void> change_disk(const Image& update, Image& image) {
  std::vector<ImageExtent> extents;
  OBD_TRY(update.extents(0, update.size(), [&](const ImageExtent& extent) {
    if (extent.kind != ExtentKind::hole) extents.push_back(extent);
    return true;
  }));
  std::vector<std::byte> wanted_buffer(kPiece);
  std::vector<std::byte> present_buffer(kPiece);
  for (const ImageExtent& extent : extents) {
    if (extent.kind == ExtentKind::zero) {
      OBD_TRY(image.zero(extent.offset, extent.length));
      continue;
    }
    for (uint64_t done = 0; done < extent.length;) {
      const uint64_t offset = extent.offset + done;
      const auto size = static_cast<size_t>(std::min<uint64_t>(kPiece, extent.length - done));
      const auto wanted = std::span(wanted_buffer).first(size);
      const auto present = std::span(present_buffer).first(size);
      OBD_TRY(update.read(wanted, offset));
      OBD_TRY(image.read(present, offset));
      OBD_TRY(for_each_difference(present, wanted, [&](Difference, size_t begin, size_t end) {
        return image.write(wanted.subspan(begin, end - begin), offset + begin);
      }));
      done += size;
    }
  }
  return image.flush();
}

}  // namespace

Result<ImageForUpdate> open_for_update(FileSystem& fs, const ImageConfig& config) {
  if (!config.upper) {
    return fail(EINVAL, "{}: the image has no upper, and sealed layers are never changed",
                config.path);
  }
  ImageForUpdate opened;
  OBD_TRY_ASSIGN(opened.image,
                 Image::open(fs, config, {.access = Access::read_write, .finish_update = true}));
  OBD_TRY_ASSIGN(const std::string path, update_path(fs, config.upper->data));
  OBD_TRY_ASSIGN(const bool there, fs.exists(path));
  if (opened.image->pending_update()) {
    if (!there) {
      return fail(
          ENOENT,
          "{}: is missing: {} was being changed by it, and is whole only when all of it has "
          "been applied; bring it back, or the layer from a copy that is older than it",
          path, config.upper->data);
    }
    OBD_TRY(apply_update(fs, *opened.image));
    opened.finished_earlier = true;
  } else if (there) {
    OBD_TRY(remove_left_over(fs, *opened.image, path));
  }
  return opened;
}

Result<bool> write_update(FileSystem& fs, const Image& image, const File& wanted, uint64_t length,
                          const ReportProgress& report) {
  OBD_TRY_ASSIGN(const LayerInfo upper, describe_upper(image));
  OBD_TRY_ASSIGN(const std::string path, update_path(fs, upper.path));
  OBD_TRY_ASSIGN(const auto pieces, pieces_with_data(image, wanted, length));
  LayerOptions options;
  options.virtual_size = std::max(length, image.size());
  options.uuid = Uuid::random();
  options.parent_uuid = upper.uuid;
  options.user_tag = kUpdateTag;
  // Who may not read the upper may not read what comes into it either.
  OBD_TRY_ASSIGN(const auto upper_data, fs.open(upper.path, Access::read_only));
  OBD_TRY_ASSIGN(options.blob.like, upper_data->info());
  OBD_TRY_ASSIGN(const auto writer, LayerWriter::create(fs, path, options));
  std::vector<std::byte> present_buffer(kPiece);
  std::vector<std::byte> wanted_buffer(kPiece);
  uint64_t done = 0;
  for (const uint64_t piece : pieces) {
    const uint64_t offset = piece * kPiece;
    const size_t size = static_cast<size_t>(std::min(kPiece, length - offset));
    const auto after = std::span(wanted_buffer).first(size);
    OBD_TRY_ASSIGN(const size_t got, wanted.read_at(after, offset));
    std::ranges::fill(after.subspan(got), std::byte{0});
    const auto before = std::span(present_buffer).first(size);
    const size_t on_disk = static_cast<size_t>(
        std::min<uint64_t>(size, image.size() - std::min(offset, image.size())));
    if (on_disk > 0) OBD_TRY(image.read(before.first(on_disk), offset));
    std::ranges::fill(before.subspan(on_disk), std::byte{0});
    OBD_TRY(add_differences(*writer, offset, before, after));
    OBD_TRY(report_progress(report, "comparing", ++done * kPiece, pieces.size() * kPiece));
  }
  if (writer->entry_count() == 0) return false;
  OBD_TRY(writer->finish());
  return true;
}

Result<void> apply_update(FileSystem& fs, Image& image) {
  OBD_TRY_ASSIGN(const LayerInfo upper, describe_upper(image));
  OBD_TRY_ASSIGN(const std::string path, update_path(fs, upper.path));
  OBD_TRY_ASSIGN(const Update update, open_update(fs, path));
  const uint64_t hash = lsmt::marker_hash(update.layer.uuid.text());
  if (!belongs_to(update, upper) || image.pending_update().value_or(hash) != hash) {
    return fail(EINVAL, "{}: is not the update that {} was being changed by; bring that one back",
                path, upper.path);
  }
  if (update.layer.virtual_size != image.size()) {
    return fail(EINVAL, "{}: trailer: virtual_size {} is not the {} of the disk that it is for",
                path, update.layer.virtual_size, image.size());
  }

  const auto change = [&]() -> Result<void> {
    OBD_TRY(image.begin_update(hash));
    OBD_TRY(change_disk(*update.content, image));
    return image.end_update(hash);
  };
  if (auto changed = change(); !changed) {
    return fail(changed.error().code,
                "{} (some of {} may have been applied: then the image opens again only when the "
                "same command has been run again and has finished)",
                changed.error().message, path);
  }
  return remove_file(fs, path);
}

}  // namespace obd
