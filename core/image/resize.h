// Giving an image's disk another size.
//
// The new part of a disk that grows reads as zeros, whatever the lowers hold there: where they hold
// data, the upper gets zero extents. A disk never shrinks past data that can be seen.
//
// Only the upper changes, in one step (core/layer/writable_layer_resize.cpp): after a crash the
// disk has the old size or the new.

#pragma once

#include <string>

#include "core/image/image.h"
#include "core/io/file.h"

namespace obd {

struct ResizeReport {
  uint64_t old_size = 0;  // bytes
  uint64_t size = 0;      // bytes
  uint64_t hidden = 0;    // bytes of the lowers' data that zero extents of the upper now hide
};

// `size` is in bytes: a multiple of 512, not 0.
// Errors: EINVAL for such a size, without an upper, for a smaller size without `may_shrink`, and
// for one that would cut off data, naming where the last data ends; EBUSY when the image is open
// elsewhere, naming the process.
Result<ResizeReport> resize_image(FileSystem& fs, const std::string& config_path, uint64_t size,
                                  bool may_shrink);

// The same for an image that is open for writing, with no other call in flight. What lies past a
// smaller size is cut off.
Result<ResizeReport> resize_disk(FileSystem& fs, Image& image, uint64_t size);

}  // namespace obd
