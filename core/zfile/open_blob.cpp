#include "core/zfile/open_blob.h"

#include <array>

#include "core/format/lsmt.h"
#include "core/format/tar.h"
#include "core/format/zfile.h"
#include "core/zfile/zfile_reader.h"

namespace obd {

Result<std::unique_ptr<Blob>> open_blob(FileSystem& fs, const std::string& path,
                                        std::shared_ptr<BlockCache> cache) {
  OBD_TRY_ASSIGN(auto file, fs.open(path, Access::read_only));
  return open_blob(std::move(file), std::move(cache));
}

Result<std::unique_ptr<Blob>> open_blob(std::unique_ptr<File> file,
                                        std::shared_ptr<BlockCache> cache) {
  // So that nobody replaces or writes it while it is read. A file that is just being sealed in
  // place is locked by its own writer, and some hosts have no locks: it is read all the same.
  (void)file->lock(LockMode::shared);
  OBD_TRY_ASSIGN(const FileInfo info, file->info());
  std::array<std::byte, tar::kMaxPrefixSize> buffer;
  OBD_TRY_ASSIGN(const size_t got, file->read_at(buffer, 0));
  std::span<const std::byte> start(buffer.data(), got);

  ByteRange window{0, info.size};
  // A layer's commit message may hold tar's magic number at its place.
  const bool is_tar =
      !lsmt::has_magic(start) && !zfile::has_magic(start) && tar::looks_like_tar(start);
  if (is_tar) {
    OBD_TRY_ASSIGN(window, tar::find_member(start, info.size, file->path()));
    OBD_TRY_ASSIGN(const size_t member, file->read_at(buffer, window.offset));
    start = std::span(buffer).first(std::min<uint64_t>(member, window.length));
  }
  const bool is_zfile = zfile::has_magic(start);
  std::unique_ptr<Blob> blob = std::make_unique<FileBlob>(std::move(file), window, is_tar);
  if (!is_zfile) return blob;
  return ZfileReader::open(std::move(blob), std::move(cache));
}

}  // namespace obd
