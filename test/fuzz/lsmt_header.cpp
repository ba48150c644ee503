// A decoded header says what its bytes say: encoding it and decoding that gives the same.

#include <algorithm>
#include <array>

#include "core/format/lsmt.h"
#include "test/fuzz/bounds.h"
#include "test/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace obd;
  const fuzz::Bounds limits(size);
  std::array<std::byte, lsmt::kHeaderSize> bytes{};
  const auto input = fuzz::as_bytes(data, std::min(size, bytes.size()));
  std::copy(input.begin(), input.end(), bytes.begin());
  const auto header = lsmt::decode_header(bytes, "header-file");
  if (!header) {
    fuzz::require_sentence(header.error(), "header-file");
    return 0;
  }
  const auto again = lsmt::decode_header(lsmt::encode_header(*header), "header-file");
  fuzz::require(again.has_value(), "what was encoded is decoded");
  fuzz::require(again->flags == header->flags && again->index_offset == header->index_offset &&
                    again->index_size == header->index_size &&
                    again->virtual_size == header->virtual_size && again->uuid == header->uuid &&
                    again->parent_uuid == header->parent_uuid &&
                    again->user_tag == header->user_tag,
                "no field changes");
  return 0;
}
