// Images made from a few bytes: first a right one, by the engine's own writers, then some fields of
// it changed, with the checksums around them made right again.
//
// Bytes 0 to 7 say what is made:
//   0     how many lowers (modulo 9; with none and no upper there is one)
//   1     bits 0-1: no upper, append, sparse, append; bit 2: an update has begun; bit 3: the upper
//         was closed; bit 4: the disk is of 1 PiB; bit 5: the host has booted since; bit 6: what is
//         changed in compressed and tar files stays as it is, without its checksums
//   2-5   seed of all that is random, little-endian; 6, 7: what the target makes of them
// Each 8 bytes that follow change one field: which file, what part of it, which of these parts (2
// bytes), how, by how much (3 bytes). image_recipe.cpp has the parts and the ways.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/image/config.h"
#include "test/support/memory_file_system.h"

namespace obd::fuzz {

inline constexpr size_t kRecipeSize = 8;
inline constexpr size_t kChangeSize = 8;

struct MadeImage {
  ImageConfig config;     // saved, too
  size_t file_bytes = 0;  // without holes
};

// Makes the image on an empty host. `input` has at least kRecipeSize bytes.
MadeImage make_image(test::MemoryFileSystem& fs, std::span<const uint8_t> input);

}  // namespace obd::fuzz
