// A disk that shows an image's, and keeps what is written to it in a sparse file beside: so that
// many changes can be tried, and then be made as one (core/image/update.h) or forgotten.
//
// Units: bytes. Ownership: refers to the image and the file. Thread-safety: none. Errors: those of
// the image and the file; ENOTSUP of the File for what nobody does with it.

#pragma once

#include <string>
#include <vector>

#include "core/image/image.h"
#include "core/io/file.h"
#include "tools/oci/disk.h"

namespace obd::oci {

class ScratchDisk final : public Disk, public File {
 public:
  // `file` is empty and as large as the image's disk.
  ScratchDisk(const Image& image, File& file);

  // As Disk:
  [[nodiscard]] uint64_t size() const override { return image_.size(); }
  [[nodiscard]] Result<void> read(std::span<std::byte> out, uint64_t offset) const override;
  [[nodiscard]] Result<void> write(std::span<const std::byte> data, uint64_t offset) override;
  [[nodiscard]] Result<void> flush() override { return {}; }

  // As File, for write_update(): the disk's whole content; next_data() tells of what was written.
  [[nodiscard]] const std::string& path() const override { return file_.path(); }
  [[nodiscard]] Result<size_t> read_at(std::span<std::byte> out, uint64_t offset) const override;
  [[nodiscard]] Result<std::optional<ByteRange>> next_data(uint64_t offset) const override;
  [[nodiscard]] Result<FileInfo> info() const override;
  void prefetch(ByteRange) const override {}
  [[nodiscard]] bool is_near(uint64_t) const override { return true; }
  [[nodiscard]] Result<void> write_at(std::span<const std::byte>, uint64_t) override;
  [[nodiscard]] Result<void> sync() override;
  [[nodiscard]] Result<void> truncate(uint64_t) override;
  [[nodiscard]] Result<void> punch_hole(ByteRange) override;
  [[nodiscard]] Result<void> lock(LockMode) override;
  [[nodiscard]] Result<void> refresh_lock_holder() const override;
  [[nodiscard]] Result<void> set_owner_and_mode(uid_t, gid_t, mode_t) override;

 private:
  [[nodiscard]] bool is_written(uint64_t block) const { return written_[block]; }
  // How far from `offset` on blocks are like the one there, up to `length`.
  [[nodiscard]] uint64_t same_from(uint64_t offset, uint64_t length) const;
  Result<void> fill_block(uint64_t block);

  const Image& image_;
  File& file_;
  std::vector<bool> written_;  // blocks of kBlockSize that the file has
};

}  // namespace obd::oci
