#include "test/fuzz/repair.h"

#include <algorithm>
#include <array>
#include <optional>

#include "core/base/checksum.h"
#include "core/format/little_endian.h"
#include "core/format/log_marker.h"
#include "core/format/tar.h"
#include "core/format/zfile.h"

namespace obd::fuzz {
namespace {

using MutableBytes = std::span<std::byte>;

// ZFile header: docs/format.md, section 7.
constexpr size_t kDigestAt = 28;
constexpr size_t kTableChecksumAt = 64;
constexpr size_t kChecksumsAt = 88;
// Tar header: docs/format.md, section 6.
constexpr size_t kTarChecksumAt = 148;
constexpr size_t kTarChecksumSize = 8;

std::span<std::byte, 4> word_at(MutableBytes bytes, size_t offset) {
  return bytes.subspan(offset).first<4>();
}

void repair_digest(MutableBytes header) {
  store_le(word_at(header, kDigestAt), uint32_t{0});
  store_le(word_at(header, kDigestAt), crc32c(0, header));
}

std::optional<zfile::Header> repaired_header(MutableBytes header) {
  if (!zfile::has_magic(header)) return std::nullopt;
  repair_digest(header);
  return *zfile::decode_header(header.first<zfile::kHeaderSize>(), "");
}

void repair_zfile(MutableBytes file) {
  if (file.size() < zfile::kHeaderSize) return;
  MutableBytes holder = file.first(zfile::kHeaderSize);
  auto header = repaired_header(holder);
  if (!header) return;
  if (!header->is_final()) {
    holder = file.last(zfile::kHeaderSize);
    if (file.size() < 2 * zfile::kHeaderSize || !(header = repaired_header(holder))) return;
  }
  if (header->table_offset > file.size() ||
      header->blocks > (file.size() - header->table_offset) / zfile::kTableEntrySize) {
    return;
  }
  const MutableBytes table =
      file.subspan(header->table_offset, header->blocks * zfile::kTableEntrySize);
  MutableBytes blocks = file.first(header->table_offset);
  blocks = blocks.subspan(std::min(blocks.size(), zfile::kHeaderSize));
  const bool checksums = holder[kChecksumsAt] != std::byte{0};
  for (size_t i = 0; checksums && i < header->blocks; ++i) {
    const auto length = load_le<uint32_t>(word_at(table, i * zfile::kTableEntrySize));
    if (length < zfile::kChecksumSize || length > blocks.size()) break;
    const size_t content = length - zfile::kChecksumSize;
    store_le(word_at(blocks, content), zfile::block_checksum(blocks.first(content)));
    blocks = blocks.subspan(length);
  }
  store_le(word_at(holder, kTableChecksumAt), zfile::table_checksum(0, table));
  repair_digest(holder);
}

// Of whatever is at the place of a tar header.
void repair_tar_header(MutableBytes block) {
  const auto field = block.subspan(kTarChecksumAt, kTarChecksumSize);
  std::ranges::fill(field, std::byte{' '});
  uint64_t sum = 0;
  for (const std::byte byte : block) sum += std::to_integer<uint64_t>(byte);
  const std::string digits = fmt::format("{:06o}", sum);
  std::ranges::copy(std::as_bytes(std::span(digits)), field.begin());
}

}  // namespace

void repair_blob(MutableBytes file) {
  if (zfile::has_magic(file) || !tar::looks_like_tar(file)) return repair_zfile(file);
  const MutableBytes start = file.first(std::min(file.size(), tar::kMaxPrefixSize));
  for (size_t at = 0; at + tar::kBlockSize <= start.size(); at += tar::kBlockSize) {
    const MutableBytes block = start.subspan(at, tar::kBlockSize);
    if (tar::looks_like_tar(block)) repair_tar_header(block);
  }
  const auto member = tar::find_member(start, file.size(), "");
  if (member) repair_zfile(file.subspan(member->offset, member->length));
}

void repair_log(MutableBytes file, uint64_t boot_hash) {
  if (file.size() < lsmt::kHeaderSize) return;
  const MutableBytes records = file.subspan(lsmt::kHeaderSize);
  const uint64_t count = records.size() / lsmt::kEntrySize;
  uint64_t covered = 0;
  uint32_t crc = lsmt::kLogCrcInit;
  for (uint64_t record = 0; record < count; ++record) {
    const auto bytes = records.subspan(record * lsmt::kEntrySize).first<lsmt::kEntrySize>();
    auto marker = lsmt::decode_marker(bytes);
    if (!marker) continue;
    switch (marker->kind) {
      case lsmt::MarkerKind::session:
        if (boot_hash != 0) marker->hash = boot_hash;
        break;
      case lsmt::MarkerKind::commit:
      case lsmt::MarkerKind::close:
      case lsmt::MarkerKind::distrust: {
        if (marker->distance > record || record - marker->distance < covered) return;
        const uint64_t reach = record - marker->distance;
        crc = crc32c(
            crc, records.subspan(covered * lsmt::kEntrySize, (reach - covered) * lsmt::kEntrySize));
        covered = reach;
        marker->check = lsmt::marker_check(crc, marker->kind, marker->distance);
        break;
      }
      case lsmt::MarkerKind::update_begun:
      case lsmt::MarkerKind::update_done:
        break;
    }
    lsmt::encode_marker(*marker, bytes);
  }
}

}  // namespace obd::fuzz
