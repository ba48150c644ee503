// The content of a ZFile, at random.
//
// open() checks the header, its digest, the jump table and its checksum; each block's checksum is
// checked whenever it is read. Small reads go through the cache; whole blocks of large ones are
// decompressed right into the caller's buffer and leave the cache to those who come back.
//
// Units: bytes of content. Ownership: owns the blob below, shares the cache. Thread-safety: as Blob
// promises. Errors: EINVAL and ENOTSUP from open(), naming the field; EBADMSG from reads, naming
// the block.

#pragma once

#include <memory>
#include <string>

#include "core/format/zfile.h"
#include "core/io/blob.h"
#include "core/zfile/block_cache.h"
#include "core/zfile/jump_table.h"

namespace obd {

class ZfileReader final : public Blob {
 public:
  // Null for the cache is the same as one that keeps nothing.
  static Result<std::unique_ptr<ZfileReader>> open(std::unique_ptr<Blob> stored,
                                                   std::shared_ptr<BlockCache> cache);

  [[nodiscard]] const std::string& path() const override { return stored_->path(); }
  [[nodiscard]] uint64_t size() const override { return header_.content_size; }
  [[nodiscard]] Result<size_t> read_at(std::span<std::byte> out, uint64_t offset) const override;
  void prefetch(ByteRange range) const override;
  [[nodiscard]] bool is_near(uint64_t offset) const override;
  [[nodiscard]] const File& file() const override { return stored_->file(); }
  [[nodiscard]] const Container& container() const override { return container_; }

 private:
  ZfileReader(std::unique_ptr<Blob> stored, std::shared_ptr<BlockCache> cache,
              const zfile::Header& header);

  Result<void> load_table();
  [[nodiscard]] size_t content_length(uint64_t block) const;
  // Decompresses whole blocks, as many as begin at out's start, fit into it and are worth one read;
  // at least one, and the value is their content's size.
  Result<size_t> read_blocks(uint64_t first, std::span<std::byte> out) const;
  Result<void> decompress(uint64_t block, std::span<const std::byte> stored,
                          std::span<std::byte> out, Decompressor& decompressor) const;

  std::unique_ptr<Blob> stored_;
  std::shared_ptr<BlockCache> cache_;
  uint64_t cache_id_;
  zfile::Header header_;
  JumpTable table_;
  Container container_;
};

}  // namespace obd
