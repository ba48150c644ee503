// Decompressing a block fills exactly the room it is given or is an error, never writes beside it,
// and does not depend on what the decompressor was used for before.
//
// Input: one byte of choices (bit 0: zstd; bit 1: a power of two is added to the room), two bytes
// (the room, little-endian), the compressed bytes.

#include <algorithm>
#include <vector>

#include "core/format/zfile.h"
#include "core/zfile/codec.h"
#include "test/fuzz/bounds.h"
#include "test/fuzz/fuzz.h"

namespace {

using namespace obd;

// The libraries are not instrumented: bytes around the room show where they write.
constexpr size_t kFence = 4096;
constexpr std::byte kFenceByte{0xA5};

struct Outcome {
  bool whole = false;
  std::vector<std::byte> content;

  bool operator==(const Outcome&) const = default;
};

Outcome decompress(Decompressor& decompressor, Compression compression, fuzz::Bytes compressed,
                   size_t room) {
  std::vector<std::byte> buffer(kFence + room + kFence, kFenceByte);
  const auto result =
      decompressor.decompress(compression, compressed, std::span(buffer).subspan(kFence, room));
  const auto fenced = [](std::span<const std::byte> bytes) {
    return std::ranges::all_of(bytes, [](std::byte b) { return b == kFenceByte; });
  };
  const auto all = std::span<const std::byte>(buffer);
  fuzz::require(fenced(all.first(kFence)), "nothing is written before the room");
  fuzz::require(fenced(all.last(kFence)), "nothing is written behind the room");
  if (!result) {
    fuzz::require(result.error().code > 0 && !result.error().message.empty(),
                  "an error has an errno and a sentence");
    return {};
  }
  const auto content = all.subspan(kFence, room);
  return {true, {content.begin(), content.end()}};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fuzz::Bounds limits(size);
  if (size < 3) return 0;
  const auto compression = (data[0] & 1) != 0 ? Compression::zstd : Compression::lz4;
  size_t room = data[1] | size_t{data[2]} << 8;
  if ((data[0] & 2) != 0) room += zfile::kMaxUpstreamBlockSize;
  const auto compressed = fuzz::as_bytes(data + 3, size - 3);

  Decompressor decompressor;
  const Outcome outcome = decompress(decompressor, compression, compressed, room);
  fuzz::require(decompress(decompressor, compression, compressed, room) == outcome,
                "twice the same");
  Decompressor other;
  (void)decompress(other, compression, compressed.first(compressed.size() / 2), room);
  fuzz::require(decompress(other, compression, compressed, room) == outcome,
                "what failed before leaves nothing behind");
  if (!outcome.whole) return 0;
  fuzz::require(!decompress(other, compression, compressed, room + 1).whole,
                "content that is too short is an error");
  fuzz::require(room == 0 || !decompress(other, compression, compressed, room - 1).whole,
                "content that is too long is an error");
  return 0;
}
