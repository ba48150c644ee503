#include "test/property/extents_check.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "core/zfile/open_blob.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

bool could_be_one(const ImageExtent& a, const ImageExtent& b) {
  if (a.kind != b.kind) return false;
  if (a.kind == ExtentKind::hole) return true;
  return a.layer == b.layer && (a.kind == ExtentKind::zero || a.physical + a.length == b.physical);
}

}  // namespace

void check_extents(FileSystem& fs, const Image& image, std::span<const std::byte> disk,
                   uint64_t offset, uint64_t length) {
  std::vector<ImageExtent> runs;
  expect_ok(image.extents(offset, length, [&](const ImageExtent& run) {
    runs.push_back(run);
    return true;
  }));
  const auto layers = expect_value(image.layers());

  uint64_t at = offset;
  std::optional<ImageExtent> previous;
  for (const ImageExtent& run : runs) {
    const std::string where = fmt::format("extent of {} bytes at {}", run.length, run.offset);
    require(run.offset == at, fmt::format("{}: the one before ends at {}", where, at));
    require(run.length > 0, where + ": is empty");
    require(run.length <= offset + length - at, where + ": goes past the range");
    require(!previous || !could_be_one(*previous, run), where + ": continues the one before");
    const auto expected = disk.subspan(run.offset, run.length);
    std::vector<std::byte> found(run.length);
    if (run.kind != ExtentKind::hole) require(run.layer < layers.size(), where + ": no such layer");
    if (run.kind == ExtentKind::data) {
      const auto blob = expect_value(open_blob(fs, layers[run.layer].path, nullptr));
      expect_ok(read_exactly(*blob, found, run.physical));
    }
    require(std::equal(found.begin(), found.end(), expected.begin(), expected.end()),
            where + ": is not what the disk holds");
    at += run.length;
    previous = run;
  }
  require(at == offset + length, fmt::format("extents end at {}", at));

  // A visitor that has seen enough is not called again.
  size_t visits = 0;
  expect_ok(image.extents(offset, length, [&](const ImageExtent&) { return ++visits < 2; }));
  require(visits == std::min<size_t>(2, runs.size()), fmt::format("{} visits", visits));
}

}  // namespace obd::test
