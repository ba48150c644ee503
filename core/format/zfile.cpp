#include "core/format/zfile.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <limits>

#include "core/base/checksum.h"
#include "core/base/units.h"
#include "core/format/little_endian.h"

namespace obd::zfile {
namespace {

constexpr auto kMagic = [] {
  constexpr std::array<uint8_t, 24> kValues{
      0x5A, 0x46, 0x69, 0x6C, 0x65, 0x00, 0x01, 0x00,  // magic0: "ZFile" 0 1 0
      0x74, 0x75, 0x6A, 0x69, 0x2E, 0x79, 0x79, 0x66,  // magic1
      0x40, 0x41, 0x6C, 0x69, 0x62, 0x61, 0x62, 0x61,
  };
  std::array<std::byte, kValues.size()> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(kValues[i]);
  return bytes;
}();

// Offsets of the header's fields.
constexpr size_t kStructSizeAt = 24;
constexpr size_t kDigestAt = 28;
constexpr size_t kFlagsAt = 32;
constexpr size_t kTableOffsetAt = 40;
constexpr size_t kBlocksAt = 48;
constexpr size_t kContentSizeAt = 56;
constexpr size_t kTableChecksumAt = 64;
constexpr size_t kBlockSizeAt = 72;
constexpr size_t kAlgorithmAt = 76;
constexpr size_t kUseDictionaryAt = 78;
constexpr size_t kDictionarySizeAt = 84;
constexpr size_t kChecksumsAt = 88;

constexpr uint32_t kStructSize = 96;
constexpr uint32_t kBlockChecksumStart = 100007;
constexpr uint64_t kMaxContentSize = std::numeric_limits<int64_t>::max();

// Over the whole header, in which the digest itself counts as zeros.
uint32_t digest_of(std::span<const std::byte, kHeaderSize> bytes) {
  constexpr std::array<std::byte, 4> kNoDigest{};
  const uint32_t before = crc32c(0, bytes.first<kDigestAt>());
  return crc32c(crc32c(before, kNoDigest), bytes.subspan<kDigestAt + kNoDigest.size()>());
}

}  // namespace

bool has_magic(std::span<const std::byte> bytes) {
  return bytes.size() >= kMagic.size() && std::equal(kMagic.begin(), kMagic.end(), bytes.begin());
}

std::array<std::byte, kHeaderSize> encode_header(const Header& header) {
  std::array<std::byte, kHeaderSize> out{};
  const std::span<std::byte, kHeaderSize> bytes(out);
  std::copy(kMagic.begin(), kMagic.end(), out.begin());
  store_le(bytes.subspan<kStructSizeAt, 4>(), kStructSize);
  store_le(bytes.subspan<kFlagsAt, 8>(), header.flags);
  store_le(bytes.subspan<kTableOffsetAt, 8>(), header.table_offset);
  store_le(bytes.subspan<kBlocksAt, 8>(), header.blocks);
  store_le(bytes.subspan<kContentSizeAt, 8>(), header.content_size);
  store_le(bytes.subspan<kTableChecksumAt, 4>(), header.table_checksum);
  store_le(bytes.subspan<kBlockSizeAt, 4>(), header.block_size);
  out[kAlgorithmAt] = std::byte{header.algorithm};
  out[kUseDictionaryAt] = std::byte{header.use_dictionary};
  store_le(bytes.subspan<kDictionarySizeAt, 4>(), header.dictionary_size);
  out[kChecksumsAt] = std::byte{header.checksums};
  if (header.has_digest()) store_le(bytes.subspan<kDigestAt, 4>(), digest_of(bytes));
  return out;
}

Result<Header> decode_header(std::span<const std::byte, kHeaderSize> bytes,
                             std::string_view where) {
  if (!has_magic(bytes)) {
    return fail(EINVAL, "{}: the magic number is missing: not a ZFile, or damaged", where);
  }
  Header header;
  header.flags = load_le<uint64_t>(bytes.subspan<kFlagsAt, 8>());
  if (header.has_digest()) {
    const auto digest = load_le<uint32_t>(bytes.subspan<kDigestAt, 4>());
    if (const uint32_t own = digest_of(bytes); digest != own) {
      return fail(EINVAL, "{}: digest {:#010x} should be {:#010x}: the header is damaged", where,
                  digest, own);
    }
  }
  header.table_offset = load_le<uint64_t>(bytes.subspan<kTableOffsetAt, 8>());
  header.blocks = load_le<uint64_t>(bytes.subspan<kBlocksAt, 8>());
  header.content_size = load_le<uint64_t>(bytes.subspan<kContentSizeAt, 8>());
  header.table_checksum = load_le<uint32_t>(bytes.subspan<kTableChecksumAt, 4>());
  header.block_size = load_le<uint32_t>(bytes.subspan<kBlockSizeAt, 4>());
  header.algorithm = std::to_integer<uint8_t>(bytes[kAlgorithmAt]);
  header.use_dictionary = bytes[kUseDictionaryAt] != std::byte{0};
  header.dictionary_size = load_le<uint32_t>(bytes.subspan<kDictionarySizeAt, 4>());
  header.checksums = bytes[kChecksumsAt] != std::byte{0};
  return header;
}

Result<void> check_final(const Header& header, uint64_t table_limit, std::string_view where) {
  if ((header.flags & kFlagTableCompressed) != 0) {
    return fail(ENOTSUP, "{}: flags {:#x} announce a compressed jump table, which nobody writes",
                where, header.flags);
  }
  if (compression_of(header.algorithm) == Compression::none) {
    return fail(ENOTSUP, "{}: algorithm {} is neither lz4 (1) nor zstd (2)", where,
                header.algorithm);
  }
  if (header.use_dictionary || header.dictionary_size != 0) {
    return fail(ENOTSUP,
                "{}: use_dict {} and dict_size {} announce a dictionary, which no reader "
                "supports",
                where, header.use_dictionary ? 1 : 0, header.dictionary_size);
  }
  if (!std::has_single_bit(header.block_size) || header.block_size < kMinBlockSize ||
      header.block_size > kMaxBlockSize) {
    return fail(EINVAL, "{}: block_size {} is not a power of two from {} to {}", where,
                header.block_size, kMinBlockSize, kMaxBlockSize);
  }
  if (header.content_size > kMaxContentSize) {
    return fail(EINVAL, "{}: original_file_size {} is more than a file can have", where,
                header.content_size);
  }
  const uint64_t blocks = header.content_size / header.block_size +
                          (is_aligned(header.content_size, header.block_size) ? 0 : 1);
  if (header.blocks != blocks) {
    return fail(EINVAL,
                "{}: index_size {} is not the {} blocks of {} bytes that original_file_size {} "
                "takes",
                where, header.blocks, blocks, header.block_size, header.content_size);
  }
  if (header.table_offset < kHeaderSize || header.table_offset > table_limit ||
      header.blocks > (table_limit - header.table_offset) / kTableEntrySize) {
    return fail(EINVAL,
                "{}: index_offset {} with index_size {}: the jump table is not between the header "
                "and byte {}",
                where, header.table_offset, header.blocks, table_limit);
  }
  return {};
}

uint8_t algorithm_of(Compression compression) { return compression == Compression::lz4 ? 1 : 2; }

Compression compression_of(uint8_t algorithm) {
  if (algorithm == algorithm_of(Compression::lz4)) return Compression::lz4;
  if (algorithm == algorithm_of(Compression::zstd)) return Compression::zstd;
  return Compression::none;
}

uint32_t block_checksum(std::span<const std::byte> compressed) {
  return crc32c(kBlockChecksumStart, compressed);
}

uint32_t table_checksum(uint32_t before, std::span<const std::byte> part) {
  return crc32c(before, part);
}

}  // namespace obd::zfile
