#include "core/zfile/codec.h"

#include <lz4.h>
#include <lz4hc.h>
#include <zstd.h>

#include <cerrno>

namespace obd {
namespace {

constexpr int kDefaultZstdLevel = 3;  // overlaybd's

const char* as_chars(std::span<const std::byte> bytes) {
  return reinterpret_cast<const char*>(bytes.data());
}
char* as_chars(std::span<std::byte> bytes) { return reinterpret_cast<char*>(bytes.data()); }

Result<void> check_size(size_t got, size_t wanted) {
  if (got == wanted) return {};
  return fail(EBADMSG, "it decompresses to {} bytes instead of {}", got, wanted);
}

}  // namespace

int max_level(Compression compression) {
  return compression == Compression::lz4 ? LZ4HC_CLEVEL_MAX : ZSTD_maxCLevel();
}

void Compressor::FreeContext::operator()(ZSTD_CCtx_s* context) const { ZSTD_freeCCtx(context); }
void Decompressor::FreeContext::operator()(ZSTD_DCtx_s* context) const { ZSTD_freeDCtx(context); }

Compressor::~Compressor() = default;

Result<Compressor> Compressor::create(Compression compression, int level) {
  if (level < 0 || level > max_level(compression)) {
    return fail(EINVAL, "{} has levels from 1 to {}, not {}", name_of(compression),
                max_level(compression), level);
  }
  Compressor compressor(compression, level);
  if (compression == Compression::zstd) {
    compressor.zstd_.reset(ZSTD_createCCtx());
    if (!compressor.zstd_) return fail(ENOMEM, "there is no memory for zstd");
    if (level == 0) compressor.level_ = kDefaultZstdLevel;
  } else if (level != 0) {
    compressor.lz4_state_ = std::make_unique<std::byte[]>(static_cast<size_t>(LZ4_sizeofStateHC()));
  }
  return compressor;
}

size_t Compressor::bound(size_t size) const {
  if (compression_ == Compression::zstd) return ZSTD_compressBound(size);
  return static_cast<size_t>(LZ4_compressBound(static_cast<int>(size)));
}

Result<size_t> Compressor::compress(std::span<const std::byte> content, std::span<std::byte> out) {
  if (compression_ == Compression::zstd) {
    const size_t size = ZSTD_compressCCtx(zstd_.get(), out.data(), out.size(), content.data(),
                                          content.size(), level_);
    if (ZSTD_isError(size) != 0) {
      return fail(EIO, "zstd cannot compress it: {}", ZSTD_getErrorName(size));
    }
    return size;
  }
  const int in_size = static_cast<int>(content.size());
  const int out_size = static_cast<int>(out.size());
  const int size = level_ == 0
                       ? LZ4_compress_default(as_chars(content), as_chars(out), in_size, out_size)
                       : LZ4_compress_HC_extStateHC(lz4_state_.get(), as_chars(content),
                                                    as_chars(out), in_size, out_size, level_);
  if (size <= 0) return fail(EIO, "lz4 cannot compress it");
  return static_cast<size_t>(size);
}

Result<void> Decompressor::decompress(Compression compression,
                                      std::span<const std::byte> compressed,
                                      std::span<std::byte> out) {
  if (compression == Compression::zstd) {
    if (!zstd_) zstd_.reset(ZSTD_createDCtx());
    if (!zstd_) return fail(ENOMEM, "there is no memory for zstd");
    const size_t size = ZSTD_decompressDCtx(zstd_.get(), out.data(), out.size(), compressed.data(),
                                            compressed.size());
    if (ZSTD_isError(size) != 0) {
      return fail(EBADMSG, "zstd cannot decompress it: {}", ZSTD_getErrorName(size));
    }
    return check_size(size, out.size());
  }
  const int size =
      LZ4_decompress_safe(as_chars(compressed), as_chars(out), static_cast<int>(compressed.size()),
                          static_cast<int>(out.size()));
  if (size < 0) return fail(EBADMSG, "lz4 cannot decompress it");
  return check_size(static_cast<size_t>(size), out.size());
}

}  // namespace obd
