#include "core/layer/layer_writer.h"

#include <algorithm>

namespace obd {
namespace {

constexpr size_t kEntriesPerWrite = 16384;  // 256 KiB

}  // namespace

Result<std::unique_ptr<LayerWriter>> LayerWriter::create(FileSystem& fs, const std::string& path,
                                                         LayerOptions options) {
  if (!is_aligned(options.virtual_size, kSectorSize) || options.virtual_size > kMaxDiskSize) {
    return fail(EINVAL, "{}: a virtual size of {} bytes is not a multiple of {} up to {}", path,
                options.virtual_size, kSectorSize, kMaxDiskSize);
  }
  if (options.user_tag.size() > lsmt::kMaxTagSize) {
    return fail(EINVAL, "{}: a message of {} bytes is longer than the {} that a layer can hold",
                path, options.user_tag.size(), lsmt::kMaxTagSize);
  }
  OBD_TRY_ASSIGN(auto blob, BlobWriter::create(fs, path, options.blob, options.overwrite));
  std::unique_ptr<LayerWriter> writer(new LayerWriter(path, std::move(options), std::move(blob)));
  OBD_TRY(writer->blob_->append(lsmt::encode_header(
      writer->header(lsmt::kFlagHeader | lsmt::kFlagData | lsmt::kFlagSealed))));
  return writer;
}

lsmt::Header LayerWriter::header(uint32_t flags) const {
  lsmt::Header header;
  header.flags = flags;
  header.virtual_size = options_.virtual_size;
  header.uuid = options_.uuid;
  header.parent_uuid = options_.parent_uuid;
  header.user_tag = options_.user_tag;
  return header;
}

Result<void> LayerWriter::add_entry(const lsmt::Entry& entry) {
  if (entry.offset < next_logical_ || entry.end() > lsmt::kAddressableEnd) {
    return fail(EINVAL,
                "{}: sectors {} to {} cannot be added: they must lie between sector {} and {}",
                path_, entry.offset.count(), entry.end().count(), next_logical_.count(),
                lsmt::kAddressableEnd.count());
  }
  next_logical_ = entry.end();
  if (!entries_.empty()) {
    lsmt::Entry& last = entries_.back();
    const bool continues = last.end() == entry.offset && last.zeroed == entry.zeroed &&
                           last.length + entry.length <= lsmt::kMaxAlignedLength &&
                           (entry.zeroed || last.physical + last.length == entry.physical);
    if (continues) {
      last.length += entry.length;
      return {};
    }
  }
  entries_.push_back(entry);
  return {};
}

Result<void> LayerWriter::append_data(Sectors logical, std::span<const std::byte> data) {
  if (!is_aligned(data.size(), kSectorSize)) {
    return fail(EINVAL, "{}: {} bytes of data are not a multiple of {}", path_, data.size(),
                kSectorSize);
  }
  const Sectors length = Sectors::floor(data.size());
  const Sectors tail = Sectors::floor(blob_->size());
  OBD_TRY(blob_->append(data));
  for (Sectors done; done < length;) {
    const Sectors part = std::min(lsmt::kMaxAlignedLength, length - done);
    OBD_TRY(add_entry({logical + done, part, tail + done, false}));
    done += part;
  }
  return {};
}

Result<void> LayerWriter::append_zero(Sectors logical, Sectors length) {
  for (Sectors done; done < length;) {
    const Sectors part = std::min(lsmt::kMaxAlignedLength, length - done);
    OBD_TRY(add_entry({logical + done, part, lsmt::kFirstDataSector, true}));
    done += part;
  }
  return {};
}

Result<void> LayerWriter::finish() {
  lsmt::Header trailer = header(lsmt::kFlagData | lsmt::kFlagSealed);
  trailer.index_offset = blob_->size();
  trailer.index_size = entries_.size();
  std::vector<std::byte> buffer;
  for (size_t next = 0; next < entries_.size();) {
    const size_t count = std::min(kEntriesPerWrite, entries_.size() - next);
    buffer.resize(count * lsmt::kEntrySize);
    for (size_t i = 0; i < count; ++i, ++next) {
      lsmt::encode_entry(entries_[next], std::span<std::byte, lsmt::kEntrySize>(
                                             &buffer[i * lsmt::kEntrySize], lsmt::kEntrySize));
    }
    OBD_TRY(blob_->append(buffer));
  }
  buffer.assign(align_up(blob_->size(), kSectorSize) - blob_->size(), std::byte{0});
  OBD_TRY(blob_->append(buffer));
  OBD_TRY(blob_->append(lsmt::encode_header(trailer)));
  return blob_->finish();
}

}  // namespace obd
