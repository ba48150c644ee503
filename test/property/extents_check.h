// Checks what Image::extents says about a range.
//
// Errors: throws as require(). Thread-safety: nothing else may change the image meanwhile.

#pragma once

#include <span>

#include "core/image/image.h"
#include "core/io/file.h"

namespace obd::test {

// The runs cover the range without a gap; neighbours that could be one are; zeros and holes read as
// zeros; data is in the layer's file where the run says. `disk` is the expected content.
void check_extents(FileSystem& fs, const Image& image, std::span<const std::byte> disk,
                   uint64_t offset, uint64_t length);

}  // namespace obd::test
