#include "core/zfile/blob_writer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>

#include "core/format/little_endian.h"
#include "core/format/tar.h"

namespace obd {
namespace {

constexpr size_t kEntriesPerWrite = 65536;  // 256 KiB

Result<void> check_options(const std::string& path, const BlobOptions& options) {
  if (options.compression == Compression::none) return {};
  if (!std::has_single_bit(options.block_size) || options.block_size < zfile::kMinBlockSize ||
      options.block_size > zfile::kMaxBlockSize) {
    return fail(EINVAL, "{}: a block size of {} bytes is not a power of two from {} to {}", path,
                options.block_size, zfile::kMinBlockSize, zfile::kMaxBlockSize);
  }
  return {};
}

}  // namespace

BlobWriter::BlobWriter(std::string path, const BlobOptions& options, OutputFile output)
    : path_(std::move(path)),
      options_(options),
      output_(std::move(output)),
      blob_start_(options.tar ? tar::kPrefixSize : 0),
      tail_(blob_start_) {}

Result<std::unique_ptr<BlobWriter>> BlobWriter::create(FileSystem& fs, const std::string& path,
                                                       const BlobOptions& options, bool overwrite) {
  OBD_TRY(check_options(path, options));
  const auto& like = options.like;
  OBD_TRY_ASSIGN(OutputFile output, OutputFile::create(fs, path, like ? 0600 : 0644, overwrite));
  if (like) OBD_TRY(output.file().set_owner_and_mode(like->owner, like->group, like->mode));
  std::unique_ptr<BlobWriter> writer(new BlobWriter(path, options, std::move(output)));
  if (options.compression == Compression::none) return writer;
  writer->tail_ += zfile::kHeaderSize;
  auto compressor = BlockCompressor::create(
      {options.compression, options.level, options.block_size, options.threads},
      [self = writer.get()](std::span<const std::byte> stored, std::span<const uint32_t> lengths) {
        return self->add_blocks(stored, lengths);
      });
  if (!compressor) {
    return fail(compressor.error().code, "{}: {}", path, compressor.error().message);
  }
  writer->compressor_ = std::move(*compressor);
  return writer;
}

Result<void> BlobWriter::append(std::span<const std::byte> content) {
  size_ += content.size();
  return compressor_ ? compressor_->add(content) : append_to_file(content);
}

Result<void> BlobWriter::append_to_file(std::span<const std::byte> bytes) {
  OBD_TRY(output_.file().write_at(bytes, tail_));
  tail_ += bytes.size();
  return {};
}

Result<void> BlobWriter::add_blocks(std::span<const std::byte> stored,
                                    std::span<const uint32_t> lengths) {
  const uint64_t blocks_per_group =
      std::max(1U, zfile::kMaxUpstreamBlockSize / options_.block_size);
  for (const uint32_t length : lengths) {
    if (lengths_.size() % blocks_per_group == 0) group_ = 0;
    // All of a group's lengths but the last have to be summed up.
    largest_group_ = std::max(largest_group_, group_);
    group_ += length;
    largest_stored_ = std::max<uint64_t>(largest_stored_, length);
    lengths_.push_back(length);
  }
  return append_to_file(stored);
}

Result<void> BlobWriter::finish_zfile() {
  OBD_TRY(compressor_->finish());
  zfile::Header header;
  header.table_offset = tail_ - blob_start_;
  header.blocks = lengths_.size();
  header.content_size = size_;
  header.block_size = options_.block_size;
  header.algorithm = zfile::algorithm_of(options_.compression);
  header.checksums = true;

  std::vector<std::byte> table;
  for (size_t next = 0; next < lengths_.size();) {
    const size_t count = std::min(kEntriesPerWrite, lengths_.size() - next);
    table.resize(count * zfile::kTableEntrySize);
    for (size_t i = 0; i < count; ++i, ++next) {
      store_le(std::span(table).subspan(i * zfile::kTableEntrySize).first<zfile::kTableEntrySize>(),
               lengths_[next]);
    }
    header.table_checksum = zfile::table_checksum(header.table_checksum, table);
    OBD_TRY(append_to_file(table));
  }
  // The header has the final values, so that a reader needs no trailer; the trailer is for those
  // that want one.
  header.flags = zfile::kFlagData | zfile::kFlagSealed | zfile::kFlagDigest;
  OBD_TRY(append_to_file(zfile::encode_header(header)));
  header.flags = zfile::kFlagHeader | zfile::kFlagData | zfile::kFlagFinal | zfile::kFlagDigest;
  OBD_TRY(output_.file().write_at(zfile::encode_header(header), blob_start_));
  add_warnings();
  return {};
}

void BlobWriter::add_warnings() {
  if (options_.block_size > zfile::kMaxUpstreamBlockSize) {
    warnings_.push_back(
        fmt::format("{}: blocks of {} bytes are larger than the {} that overlaybd "
                    "reads; choose smaller ones for layers that it is to serve",
                    path_, options_.block_size, zfile::kMaxUpstreamBlockSize));
  } else if (std::max(largest_stored_, largest_group_) > zfile::kMaxUpstreamStored) {
    warnings_.push_back(
        fmt::format("{}: some data does not compress, and overlaybd cannot read "
                    "blocks of {} bytes that do not become smaller; choose {} for "
                    "layers that it is to serve",
                    path_, options_.block_size, zfile::kDefaultBlockSize));
  }
}

Result<void> BlobWriter::finish() {
  if (compressor_) OBD_TRY(finish_zfile());
  if (options_.tar) {
    const uint64_t size = tail_ - blob_start_;
    constexpr std::array<std::byte, tar::suffix_size(1)> kZeros{};
    OBD_TRY(append_to_file(std::span(kZeros).first(tar::suffix_size(size))));
    OBD_TRY(output_.file().write_at(tar::encode_prefix(size), 0));
  }
  return output_.finish();
}

}  // namespace obd
