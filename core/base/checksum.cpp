#include "core/base/checksum.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace obd {

uint32_t crc32c(uint32_t crc, std::span<const std::byte> data) {
  // ISA-L counts in int.
  constexpr size_t kMaxChunk = size_t{1} << 30;
  while (!data.empty()) {
    const auto chunk = data.first(std::min(data.size(), kMaxChunk));
    // The parameter lacks const, but the buffer is only read.
    auto* bytes = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(chunk.data()));
    crc = crc32_iscsi(bytes, static_cast<int>(chunk.size()), crc);
    data = data.subspan(chunk.size());
  }
  return crc;
}

}  // namespace obd
