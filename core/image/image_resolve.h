// Looking a range up through the whole stack: the live index first, the frozen index in its gaps.

#pragma once

#include <array>

#include "core/image/image.h"

namespace obd {

// Calls visit(extent) for each extent of [from, to), in order and without a gap (holes included),
// until it fails or returns false. Extents are looked up a few at a time into a buffer on the
// stack, so that no index lock is held while visit() runs.
template <typename Visit>
Result<void> Image::for_each_extent(Sectors from, Sectors to, Visit&& visit) const {
  constexpr size_t kBatch = 16;
  bool go_on = true;

  // The sealed layers' view of a gap in the upper.
  auto visit_frozen = [&](Sectors begin, Sectors end) -> Result<void> {
    std::array<Extent, kBatch> found;
    while (begin < end && go_on) {
      const size_t count = frozen_->find(begin, end, found);
      const Sectors stop = count == found.size() ? found.back().end() : end;
      for (size_t i = 0; i <= count && go_on; ++i) {
        const Sectors next = i < count ? found[i].logical : stop;
        if (begin < next) {
          OBD_TRY_ASSIGN(go_on, visit(Extent{begin, next - begin, {}, ExtentKind::hole, 0}));
        }
        if (i == count || !go_on) break;
        OBD_TRY_ASSIGN(go_on, visit(found[i]));
        begin = found[i].end();
      }
      begin = stop;
    }
    return {};
  };

  if (!upper_) return visit_frozen(from, to);
  std::array<Extent, kBatch> found;
  while (from < to && go_on) {
    const size_t count = upper_->find(from, to, found);
    const Sectors stop = count == found.size() ? found.back().end() : to;
    for (size_t i = 0; i <= count && go_on; ++i) {
      const Sectors next = i < count ? found[i].logical : stop;
      if (from < next) OBD_TRY(visit_frozen(from, next));
      if (i == count || !go_on) break;
      OBD_TRY_ASSIGN(go_on, visit(found[i]));
      from = found[i].end();
    }
    from = stop;
  }
  return {};
}

}  // namespace obd
