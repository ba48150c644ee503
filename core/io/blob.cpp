#include "core/io/blob.h"

#include <cerrno>

namespace obd {

const char* name_of(Compression compression) {
  switch (compression) {
    case Compression::lz4:
      return "lz4";
    case Compression::zstd:
      return "zstd";
    case Compression::none:
      break;
  }
  return "none";
}

std::string to_text(const Container& container) {
  if (container.compression == Compression::none) return container.tar ? "tar" : "raw";
  const std::string block = container.block_size % 1024 == 0
                                ? fmt::format("{}K", container.block_size / 1024)
                                : std::to_string(container.block_size);
  return fmt::format("zfile {} {}{}", name_of(container.compression), block,
                     container.tar ? " in tar" : "");
}

Result<void> read_exactly(const Blob& blob, std::span<std::byte> out, uint64_t offset) {
  OBD_TRY_ASSIGN(const size_t count, blob.read_at(out, offset));
  if (count < out.size()) {
    return fail(EIO,
                "{}: ends early: {} bytes at offset {} of the layer are needed, but only {} "
                "are there",
                blob.path(), out.size(), offset, count);
  }
  return {};
}

}  // namespace obd
