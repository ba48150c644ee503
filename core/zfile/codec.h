// One block compressed and decompressed: what the engine uses of liblz4 and libzstd.
//
// Ownership: each object owns its working memory. Thread-safety: none; one object a thread at a
// time. Errors: ENOMEM, or EINVAL for a level that does not exist; EBADMSG for bytes that do not
// decompress. Sentences name the reason; the caller knows the file and the block.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "core/base/result.h"
#include "core/io/blob.h"

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

namespace obd {

// The levels that a compression has, 0 being the usual one. lz4: from 1 to 12, the high-compression
// variant. zstd: from 1 to 22; 0 is 3.
int max_level(Compression compression);

class Compressor {
 public:
  // `compression` is lz4 or zstd.
  static Result<Compressor> create(Compression compression, int level);
  Compressor(Compressor&&) noexcept = default;
  Compressor& operator=(Compressor&&) noexcept = default;
  ~Compressor();

  // The most that `size` bytes can become.
  [[nodiscard]] size_t bound(size_t size) const;

  // Returns the size of what it wrote to `out`, which has room for bound(content.size()).
  Result<size_t> compress(std::span<const std::byte> content, std::span<std::byte> out);

 private:
  struct FreeContext {
    void operator()(ZSTD_CCtx_s* context) const;
  };

  Compressor(Compression compression, int level) : compression_(compression), level_(level) {}

  Compression compression_;
  int level_;
  std::unique_ptr<ZSTD_CCtx_s, FreeContext> zstd_;
  std::unique_ptr<std::byte[]> lz4_state_;  // of the high-compression variant
};

class Decompressor {
 public:
  // Fills `out`; anything but exactly its size is an error. `compression` is lz4 or zstd.
  Result<void> decompress(Compression compression, std::span<const std::byte> compressed,
                          std::span<std::byte> out);

 private:
  struct FreeContext {
    void operator()(ZSTD_DCtx_s* context) const;
  };

  std::unique_ptr<ZSTD_DCtx_s, FreeContext> zstd_;  // made when first needed
};

}  // namespace obd
