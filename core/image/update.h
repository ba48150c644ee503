// Changing many places of an image's disk as one step, which a crash cannot halve.
//
// The changes are first written as a sealed layer, the *update*, beside the upper's data file:
// its data and zero extents are what the disk is to hold. Then they are applied:
//
//   1. a mark in the index log says that the update has begun, and is made stable
//   2. the changes go to the upper, as any write or zero does, and are made stable
//   3. a mark says that it is done, and is made stable; the update is removed
//
// A crash before 1 leaves the old disk, and a file that the next open_for_update() removes. From 1
// to 3 the layer opens for open_for_update() alone, which applies the update again from the start:
// that comes to the same, however much of it had been applied. docs/format.md has the argument.
//
// Thread-safety: none; nobody else uses the image meanwhile.

#pragma once

#include <cstdint>
#include <memory>

#include "core/base/progress.h"
#include "core/image/image.h"

namespace obd {

struct ImageForUpdate {
  std::unique_ptr<Image> image;
  bool finished_earlier = false;  // an update that had been interrupted
};

// Opens an image for writing, without its resultFile. Finishes an update that was interrupted, or
// removes one that had not begun.
// Errors: EINVAL without an upper, and for a file in the update's place that is not the one that
// the log means; ENOENT when it is missing although the log says that it has begun.
Result<ImageForUpdate> open_for_update(FileSystem& fs, const ImageConfig& config);

// Writes the update that makes the first `length` bytes of the disk equal to those of `wanted`,
// which reads as zeros past its end; 4 KiB that are all zeros become a zero extent. The disk may be
// shorter than that, but must have grown before the update is applied. Changes nothing of the
// image; what is written is stable. False when nothing differs: then there is no update.
Result<bool> write_update(FileSystem& fs, const Image& image, const File& wanted, uint64_t length,
                          const ReportProgress& report);

// Applies the update that was written, and removes it. After a failure the disk is what it was, or
// open_for_update() has to finish the update before the image opens again: the sentence tells.
Result<void> apply_update(FileSystem& fs, Image& image);

}  // namespace obd
