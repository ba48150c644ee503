// Making the two files of an empty writable layer.

#include "core/format/log_marker.h"
#include "core/layer/writable_layer.h"

namespace obd {
namespace {

Result<void> fill_data_file(File& file, const lsmt::Header& header) {
  lsmt::Header data_header = header;
  data_header.has_log = header.is_sparse();
  OBD_TRY(file.write_at(lsmt::encode_header(data_header), 0));
  if (header.is_sparse()) {
    if (auto sized = file.truncate(lsmt::kHeaderSize + header.virtual_size); !sized) {
      return fail(sized.error().code,
                  "{}; a sparse layer's file is as large as its disk, so choose a smaller size, "
                  "another host file system or the append kind",
                  sized.error().message);
    }
  }
  return file.sync();
}

Result<void> fill_index_file(FileSystem& fs, const File& file, const lsmt::Header& header) {
  OBD_TRY_ASSIGN(const FileInfo like, file.info());
  OBD_TRY_ASSIGN(auto draft, IndexLog::prepare(fs, file.path(), header, LiveIndex(), std::nullopt,
                                               header.is_sparse(), like));
  return fs.rename(draft.temporary_path, file.path());
}

}  // namespace

Result<void> create_writable_layer(FileSystem& fs, const std::string& data_path,
                                   const std::string& index_path, const NewLayer& layer) {
  lsmt::Header header;
  header.flags = lsmt::kFlagHeader | lsmt::kFlagData;
  if (layer.kind == UpperKind::sparse) header.flags |= lsmt::kFlagSparse;
  header.virtual_size = layer.virtual_size;
  header.uuid = layer.uuid;
  header.parent_uuid = layer.parent_uuid;
  if (!is_aligned(layer.virtual_size, kSectorSize) || layer.virtual_size > kMaxDiskSize) {
    return fail(EINVAL, "{}: a virtual size of {} bytes is not a multiple of {} up to {}",
                data_path, layer.virtual_size, kSectorSize, kMaxDiskSize);
  }

  OBD_TRY_ASSIGN(const auto data, fs.create(data_path, 0644));
  auto filled = fill_data_file(*data, header);
  if (filled) {
    auto index = fs.create(index_path, 0644);
    filled = index ? fill_index_file(fs, **index, header)
                   : Result<void>(std::unexpected<Error>(index.error()));
    // Half a layer is of no use; the reason for it is what matters.
    if (index && !filled) (void)fs.remove(index_path);
  }
  if (!filled) {
    (void)fs.remove(data_path);
    return filled;
  }
  OBD_TRY(fs.sync_directory(directory_of(data_path)));
  return fs.sync_directory(directory_of(index_path));
}

}  // namespace obd
