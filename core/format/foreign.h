// Other programs' disk images, told by how they begin: for saying what a file is that was given
// where a layer, a config or a raw disk belongs. Pure functions.

#pragma once

#include <cstddef>
#include <span>

namespace obd {

// As many bytes of a file as foreign_format() wants to see, if it has them.
inline constexpr size_t kForeignMagicSize = 8;

// "a qcow2 image"; null when the bytes are no image that qemu-img converts, as far as they tell.
const char* foreign_format(std::span<const std::byte> start);

}  // namespace obd
