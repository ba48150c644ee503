// Extents: runs of logical sectors and where their bytes are.
//
// Thread-safety: plain values.

#pragma once

#include <cstdint>

#include "core/base/units.h"

namespace obd {

enum class ExtentKind : uint8_t {
  hole,  // nothing here: the layer below shows through; below the bottom layer, zeros
  zero,  // reads as zeros and hides what is below
  data,
};

// Number of a layer in its stack: lowers from 0 (bottom) to 254, then the upper.
using LayerNumber = uint8_t;
inline constexpr LayerNumber kUpperLayer = 255;
inline constexpr size_t kMaxLowers = 255;

struct Extent {
  Sectors logical;
  Sectors length;
  Sectors physical;  // from byte 0 of the layer's file; 0 unless data
  ExtentKind kind = ExtentKind::hole;
  LayerNumber layer = 0;  // meaningless for holes

  [[nodiscard]] Sectors end() const { return logical + length; }
  bool operator==(const Extent&) const = default;

  // The part of this extent within [from, to), which must overlap it.
  [[nodiscard]] Extent clipped(Sectors from, Sectors to) const {
    Extent part = *this;
    const Sectors begin = from > logical ? from : logical;
    const Sectors stop = to < end() ? to : end();
    part.logical = begin;
    part.length = stop - begin;
    if (kind == ExtentKind::data) part.physical = physical + (begin - logical);
    return part;
  }
};

}  // namespace obd
