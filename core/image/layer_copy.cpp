#include "core/image/layer_copy.h"

#include <algorithm>
#include <vector>

#include "core/base/zeros.h"

namespace obd {
namespace {

constexpr size_t kCopySize = 4 * 1024 * 1024;

// In order of the disk; neighbours of one kind are joined, wherever their bytes are.
Result<std::vector<ImageExtent>> chosen_extents(const Image& image, const LayerChoice& choice) {
  const size_t upper = image.config().lowers.size();
  std::vector<ImageExtent> extents;
  OBD_TRY(image.extents(0, image.size(), [&](const ImageExtent& extent) {
    const bool wanted =
        extent.kind == ExtentKind::data || (extent.kind == ExtentKind::zero && !choice.drop_zeros);
    if (!wanted || (choice.upper_only && extent.layer != upper)) return true;
    if (!extents.empty() && extents.back().kind == extent.kind &&
        extents.back().offset + extents.back().length == extent.offset) {
      extents.back().length += extent.length;
    } else {
      extents.push_back(extent);
    }
    return true;
  }));
  return extents;
}

// Data as it comes, cut where a block of zeros begins or ends.
Result<void> append_data(LayerWriter& writer, uint64_t offset, std::span<const std::byte> data,
                         bool drop_zeros) {
  while (!data.empty()) {
    const auto first_block = [&](size_t at) {
      const size_t to_boundary = kBlockSize - (offset + at) % kBlockSize;
      return data.subspan(at, std::min<size_t>(to_boundary, data.size() - at));
    };
    const bool zeros = is_all_zero(first_block(0));
    size_t length = 0;
    while (length < data.size() && is_all_zero(first_block(length)) == zeros) {
      length += first_block(length).size();
    }
    const Sectors logical = Sectors::floor(offset);
    if (!zeros) {
      OBD_TRY(writer.append_data(logical, data.first(length)));
    } else if (!drop_zeros) {
      OBD_TRY(writer.append_zero(logical, Sectors::floor(length)));
    }
    offset += length;
    data = data.subspan(length);
  }
  return {};
}

}  // namespace

Result<LayerInfo> copy_to_layer(FileSystem& fs, const Image& image, const LayerChoice& choice,
                                const std::string& path, const LayerOptions& options,
                                const ReportProgress& report) {
  OBD_TRY_ASSIGN(const auto extents, chosen_extents(image, choice));
  uint64_t total = 0;
  for (const ImageExtent& extent : extents) {
    if (extent.kind == ExtentKind::data) total += extent.length;
  }
  std::vector<std::string> warnings;
  {
    OBD_TRY_ASSIGN(const auto writer, LayerWriter::create(fs, path, options));
    std::vector<std::byte> buffer(kCopySize);
    uint64_t done = 0;
    for (const ImageExtent& extent : extents) {
      if (extent.kind == ExtentKind::zero) {
        OBD_TRY(writer->append_zero(Sectors::floor(extent.offset), Sectors::floor(extent.length)));
        continue;
      }
      const uint64_t end = extent.offset + extent.length;
      for (uint64_t at = extent.offset; at < end;) {
        // Whole blocks at a time, so that zeros are found wherever a piece begins.
        const uint64_t stop = std::min(end, align_down(at + kCopySize, kBlockSize));
        const auto piece = std::span(buffer).first(static_cast<size_t>(stop - at));
        OBD_TRY(image.read(piece, at));
        OBD_TRY(append_data(*writer, at, piece, choice.drop_zeros));
        at += piece.size();
        done += piece.size();
        OBD_TRY(report_progress(report, "copying", done, total));
      }
    }
    OBD_TRY(writer->finish());
    warnings = writer->warnings();
  }
  OBD_TRY_ASSIGN(const auto layer, SealedLayer::open(fs, path));
  OBD_TRY_ASSIGN(LayerInfo info, describe(*layer));
  info.warnings.insert(info.warnings.end(), warnings.begin(), warnings.end());
  return info;
}

}  // namespace obd
