#include "core/layer/layer_writer.h"

#include <algorithm>

namespace obd {
namespace {

constexpr size_t kEntriesPerWrite = 16384;  // 256 KiB

}  // namespace

LayerWriter::LayerWriter(FileSystem& fs, std::string path, LayerOptions options)
    : fs_(fs),
      path_(std::move(path)),
      // Two writers of one target must not share a file: the last to finish would rename half a
      // layer.
      temporary_path_(path_ + ".tmp-" + Uuid::random().text().substr(0, 8)),
      options_(std::move(options)) {}

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
  OBD_TRY_ASSIGN(const bool taken, fs.exists(path));
  if (taken && !options.overwrite) {
    return fail(EEXIST, "{}: the file exists; remove it or ask for it to be overwritten", path);
  }
  std::unique_ptr<LayerWriter> writer(new LayerWriter(fs, path, std::move(options)));
  OBD_TRY_ASSIGN(writer->file_, fs.create(writer->temporary_path_, 0644));

  lsmt::Header header;
  header.flags = lsmt::kFlagHeader | lsmt::kFlagData | lsmt::kFlagSealed;
  header.virtual_size = writer->options_.virtual_size;
  header.uuid = writer->options_.uuid;
  header.parent_uuid = writer->options_.parent_uuid;
  header.user_tag = writer->options_.user_tag;
  OBD_TRY(writer->file_->write_at(lsmt::encode_header(header), 0));
  return writer;
}

LayerWriter::~LayerWriter() {
  // Only a temporary file, and nobody left to tell.
  if (file_ && !finished_) (void)fs_.remove(temporary_path_);
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
  OBD_TRY(file_->write_at(data, tail_.bytes()));
  for (Sectors done; done < length;) {
    const Sectors part = std::min(lsmt::kMaxAlignedLength, length - done);
    OBD_TRY(add_entry({logical + done, part, tail_ + done, false}));
    done += part;
  }
  tail_ += length;
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
  uint64_t offset = tail_.bytes();
  std::vector<std::byte> buffer;
  for (size_t next = 0; next < entries_.size();) {
    const size_t count = std::min(kEntriesPerWrite, entries_.size() - next);
    buffer.resize(count * lsmt::kEntrySize);
    for (size_t i = 0; i < count; ++i, ++next) {
      lsmt::encode_entry(entries_[next], std::span<std::byte, lsmt::kEntrySize>(
                                             &buffer[i * lsmt::kEntrySize], lsmt::kEntrySize));
    }
    OBD_TRY(file_->write_at(buffer, offset));
    offset += buffer.size();
  }
  buffer.assign(align_up(offset, kSectorSize) - offset, std::byte{0});
  OBD_TRY(file_->write_at(buffer, offset));
  offset += buffer.size();

  lsmt::Header trailer;
  trailer.flags = lsmt::kFlagData | lsmt::kFlagSealed;
  trailer.index_offset = tail_.bytes();
  trailer.index_size = entries_.size();
  trailer.virtual_size = options_.virtual_size;
  trailer.uuid = options_.uuid;
  trailer.parent_uuid = options_.parent_uuid;
  trailer.user_tag = options_.user_tag;
  OBD_TRY(file_->write_at(lsmt::encode_header(trailer), offset));
  OBD_TRY(file_->sync());
  OBD_TRY(options_.overwrite ? fs_.rename(temporary_path_, path_)
                             : fs_.rename_new(temporary_path_, path_));
  finished_ = true;
  return fs_.sync_directory(directory_of(path_));
}

}  // namespace obd
