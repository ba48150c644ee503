// The stream of headers and what they say of an entry. Its content: tar_content.cpp.

#include "tools/oci/tar_reader.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include "core/base/zeros.h"

namespace obd::oci {
namespace {

constexpr size_t kMaxRecords = size_t{8} << 20;  // bytes of one pax header
constexpr size_t kMaxLongName = size_t{64} << 10;
constexpr size_t kSkipSize = size_t{64} << 10;
constexpr size_t kStepSize = size_t{64} << 10;  // memory is taken in such steps
constexpr uint64_t kMaxId = 0xFFFFFFFE;         // the next one means "no user"
constexpr uint64_t kMaxMajor = 0xFFF;
constexpr uint64_t kMaxMinor = 0xFFFFF;

constexpr std::string_view kXattr = "SCHILY.xattr.";
constexpr std::string_view kLibarchiveXattr = "LIBARCHIVE.xattr.";
constexpr std::string_view kSelinux = "RHT.security.selinux";

constexpr char kTypeOldFile = '\0';
constexpr char kTypeFile = '0';
constexpr char kTypeHardLink = '1';
constexpr char kTypeSymlink = '2';
constexpr char kTypeCharDevice = '3';
constexpr char kTypeBlockDevice = '4';
constexpr char kTypeDirectory = '5';
constexpr char kTypeFifo = '6';
constexpr char kTypeContiguous = '7';
constexpr char kTypePax = 'x';
constexpr char kTypeOldPax = 'X';  // Solaris
constexpr char kTypeGlobalPax = 'g';
constexpr char kTypeLongName = 'L';
constexpr char kTypeLongLink = 'K';
constexpr char kTypeSparse = 'S';
constexpr char kTypeVolumeLabel = 'V';

uint64_t padding_of(uint64_t size) { return (kTarBlock - size % kTarBlock) % kTarBlock; }

// "-12.5": whole seconds below, and what is above them.
std::optional<Timestamp> parse_time(std::string_view text) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  const size_t point = text.find('.');
  const auto seconds = parse_number(text.substr(0, point), 10);
  if (!seconds || *seconds > kMaxFileSize / 2) return std::nullopt;
  Timestamp time{static_cast<int64_t>(*seconds), 0};
  if (point != std::string_view::npos) {
    const std::string_view digits = text.substr(point + 1);
    if (digits.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
    uint32_t scale = 100'000'000;
    for (const char digit : digits.substr(0, 9)) {
      time.nanoseconds += scale * static_cast<uint32_t>(digit - '0');
      scale /= 10;
    }
  }
  if (negative) {
    time.seconds = -time.seconds;
    if (time.nanoseconds > 0) {
      --time.seconds;
      time.nanoseconds = 1'000'000'000 - time.nanoseconds;
    }
  }
  return time;
}

std::optional<std::string> decode_base64(std::string_view text) {
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string out;
  uint32_t bits = 0;
  unsigned count = 0;
  for (const char c : text) {
    constexpr std::string_view kDigits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    bits = (bits << 6 | static_cast<uint32_t>(digit)) & 0xFFFFFF;
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += static_cast<char>(bits >> count & 0xFF);
    }
  }
  return out;
}

// "%3D" stands for "=".
std::string decode_percents(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto code = text[i] == '%' && i + 2 < text.size()
                          ? parse_number(text.substr(i + 1, 2), 16)
                          : std::optional<uint64_t>();
    out += code ? static_cast<char>(*code) : text[i];
    if (code) i += 2;
  }
  return out;
}

}  // namespace

const std::string* TarReader::record(std::string_view key) const {
  auto found = records_.find(key);
  if (found == records_.end()) {
    found = global_.find(key);
    if (found == global_.end()) return nullptr;
  }
  // No value takes a global one back.
  return found->second.empty() ? nullptr : &found->second;
}

void TarReader::warn_once(std::string_view key, std::string sentence) {
  if (warned_.emplace(key, true).second) warnings_.push_back(std::move(sentence));
}

// --- the stream ---

Result<void> TarReader::read_stored(std::span<std::byte> out) {
  OBD_TRY_ASSIGN(const size_t got, stream_.read(out));
  at_ += got;
  if (got < out.size()) return fail(EINVAL, "{}: the tar file is cut off, at byte {}", where_, at_);
  return {};
}

Result<void> TarReader::skip(uint64_t bytes) {
  std::array<std::byte, kSkipSize> buffer;
  while (bytes > 0) {
    const auto piece = std::span(buffer).first(std::min<uint64_t>(bytes, buffer.size()));
    OBD_TRY(read_stored(piece));
    bytes -= piece.size();
  }
  return {};
}

// False at the stream's end.
Result<bool> TarReader::read_block(std::span<std::byte, kTarBlock> block) {
  OBD_TRY_ASSIGN(const size_t got, stream_.read(block));
  at_ += got;
  if (got == 0) return false;
  if (got < block.size()) {
    return fail(EINVAL, "{}: the tar file is cut off in a header, at byte {}", stream_.name(), at_);
  }
  return true;
}

// All that follows the end is read as well: what decompresses it checks its checksum there.
Result<void> TarReader::drain() {
  std::vector<std::byte> buffer(kSkipSize);
  for (;;) {
    OBD_TRY_ASSIGN(const size_t got, stream_.read(buffer));
    at_ += got;
    if (got < buffer.size()) return {};
  }
}

// After a block of zeros: another one ends the archive.
Result<bool> TarReader::end_of_archive() {
  std::array<std::byte, kTarBlock> block;
  OBD_TRY_ASSIGN(const bool more, read_block(block));
  if (more && !is_all_zero(block)) {
    return fail(EINVAL,
                "{}: there is a block of zeros before byte {}, and then more: it is damaged",
                stream_.name(), at_ - kTarBlock);
  }
  ended_ = true;
  OBD_TRY(drain());
  return true;
}

Result<std::string> TarReader::read_text(uint64_t size, std::string_view what) {
  const size_t most = what == "name" ? kMaxLongName : kMaxRecords;
  if (size > most) {
    return fail(EINVAL, "{}: a long {} of {} bytes is more than {}", where_, what, size, most);
  }
  std::string text;
  while (text.size() < size) {
    const size_t begin = text.size();
    text.resize(std::min<size_t>(size, begin + kStepSize));
    OBD_TRY(read_stored(std::as_writable_bytes(std::span(text).subspan(begin))));
  }
  OBD_TRY(skip(padding_of(size)));
  return text;
}

// Each record is "LENGTH KEY=VALUE\n", its length counting all of it.
Result<void> TarReader::read_records(const TarHeader& header, Records& into) {
  const auto size = static_cast<uint64_t>(header.size);
  uint64_t& total = &into == &global_ ? global_bytes_ : record_bytes_;
  if (size > kMaxRecords - total) {
    return fail(EINVAL, "{}: its pax headers have more than {} bytes", where_, kMaxRecords);
  }
  total += size;
  OBD_TRY_ASSIGN(const std::string text, read_text(size, "pax header"));
  std::string_view rest = text;
  // Some programs fill the last block with NULs and count them.
  while (!rest.empty() && rest.front() != '\0') {
    const size_t space = rest.find(' ');
    const auto length =
        space == std::string_view::npos ? std::nullopt : parse_number(rest.substr(0, space), 10);
    if (!length || *length < space + 3 || *length > rest.size() || rest[*length - 1] != '\n') {
      return fail(EINVAL, "{}: the pax record '{}' is malformed", where_,
                  shown(rest.substr(0, 40)));
    }
    const std::string_view pair = rest.substr(space + 1, *length - space - 2);
    rest.remove_prefix(*length);
    const size_t equals = pair.find('=');
    if (equals == std::string_view::npos || equals == 0) {
      return fail(EINVAL, "{}: the pax record '{}' has no key and value", where_,
                  shown(pair.substr(0, 40)));
    }
    const std::string_view key = pair.substr(0, equals);
    const std::string_view value = pair.substr(equals + 1);
    if (!key.starts_with(kXattr) && value.contains('\0')) {
      return fail(EINVAL, "{}: the pax record '{}' holds a NUL", where_, shown(key));
    }
    // Sparse files 0.0 repeat two keys for every range: they come to the list of 0.1.
    if (key == "GNU.sparse.offset" || key == "GNU.sparse.numbytes") {
      std::string& map = into[std::string(kSparseMap)];
      if (!map.empty()) map += ',';
      map += value;
    } else {
      into.insert_or_assign(std::string(key), std::string(value));
    }
  }
  return {};
}

// --- entries ---

Result<std::optional<TarEntry>> TarReader::next() {
  if (ended_) return std::optional<TarEntry>();
  OBD_TRY(skip(content_));
  OBD_TRY(skip(padding_));
  content_ = padding_ = 0;
  records_.clear();
  record_bytes_ = 0;
  long_name_.reset();
  long_link_.reset();
  for (bool pending = false;; pending = true) {
    std::array<std::byte, kTarBlock> block;
    where_ = fmt::format("{}: the tar header at byte {}", stream_.name(), at_);
    OBD_TRY_ASSIGN(const bool more, read_block(block));
    if (!more || is_all_zero(block)) {
      if (pending && !(records_.empty() && !long_name_ && !long_link_)) {
        return fail(EINVAL, "{}: the file that the last header announces is missing", where_);
      }
      if (more) {
        OBD_TRY(end_of_archive());
      } else {
        ended_ = true;
        warn_once("end", fmt::format("{}: ends without the blocks of zeros that end a tar file; it "
                                     "may have been cut off",
                                     stream_.name()));
      }
      return std::optional<TarEntry>();
    }
    OBD_TRY_ASSIGN(const TarHeader header, decode_tar_header(block, where_));
    if (header.size < 0) return fail(EINVAL, "{}: size {} is negative", where_, header.size);
    switch (header.type) {
      case kTypePax:
      case kTypeOldPax:
        OBD_TRY(read_records(header, records_));
        continue;
      case kTypeGlobalPax:
        OBD_TRY(read_records(header, global_));
        continue;
      case kTypeLongName:
      case kTypeLongLink: {
        OBD_TRY_ASSIGN(std::string text, read_text(static_cast<uint64_t>(header.size), "name"));
        text.resize(std::min(text.size(), text.find('\0')));
        (header.type == kTypeLongName ? long_name_ : long_link_) = std::move(text);
        continue;
      }
      case kTypeVolumeLabel:
        OBD_TRY(skip(static_cast<uint64_t>(header.size)));
        OBD_TRY(skip(padding_of(static_cast<uint64_t>(header.size))));
        continue;
      default:
        return make_entry(header, block);
    }
  }
}

Result<std::optional<TarEntry>> TarReader::make_entry(const TarHeader& header, TarBlock block) {
  TarEntry entry;
  OBD_TRY(set_names(entry, header));
  where_ =
      fmt::format("{}: entry '{}' at byte {}", stream_.name(), shown(entry.path), at_ - kTarBlock);
  switch (header.type) {
    case kTypeOldFile:
    case kTypeFile:
    case kTypeContiguous:
    case kTypeSparse:
      entry.type = EntryType::file;
      // Before ustar had a type for them, a slash told directories.
      if (header.type != kTypeSparse && entry.path.ends_with('/')) {
        entry.type = EntryType::directory;
      }
      break;
    case kTypeHardLink:
      entry.type = EntryType::hard_link;
      break;
    case kTypeSymlink:
      entry.type = EntryType::symlink;
      break;
    case kTypeCharDevice:
      entry.type = EntryType::char_device;
      break;
    case kTypeBlockDevice:
      entry.type = EntryType::block_device;
      break;
    case kTypeDirectory:
      entry.type = EntryType::directory;
      break;
    case kTypeFifo:
      entry.type = EntryType::fifo;
      break;
    default:
      return fail(ENOTSUP, "{}: type '{}' is no kind of file that a layer can hold", where_,
                  shown({&header.type, 1}));
  }
  OBD_TRY(set_numbers(entry, header));
  OBD_TRY(set_attributes(entry));
  if (entry.type == EntryType::file) {
    content_ = static_cast<uint64_t>(header.size);
    if (const std::string* text = record("size")) {
      const auto size = parse_number(*text, 10);
      if (!size || *size > kMaxFileSize) {
        return fail(EINVAL, "{}: pax size '{}' is no size", where_, shown(*text));
      }
      content_ = *size;
    }
    padding_ = padding_of(content_);
    OBD_TRY(set_content(entry, block, header.type == kTypeSparse));
  }
  return std::optional<TarEntry>(std::move(entry));
}

Result<void> TarReader::set_names(TarEntry& entry, const TarHeader& header) {
  entry.path = header.name;
  entry.link = header.link;
  if (long_name_) entry.path = *long_name_;
  if (long_link_) entry.link = *long_link_;
  if (const std::string* path = record("path")) entry.path = *path;
  if (const std::string* path = record("GNU.sparse.name")) entry.path = *path;
  if (const std::string* link = record("linkpath")) entry.link = *link;
  if (entry.path.empty()) return fail(EINVAL, "{}: the name is empty", where_);
  return {};
}

Result<void> TarReader::set_numbers(TarEntry& entry, const TarHeader& header) {
  entry.mode = static_cast<uint32_t>(header.mode & 07777);
  const auto id = [&](std::string_view key, int64_t from_header) -> Result<uint32_t> {
    const std::string* text = record(key);
    const auto value =
        text == nullptr
            ? (from_header < 0 ? std::nullopt : std::optional(static_cast<uint64_t>(from_header)))
            : parse_number(*text, 10);
    if (value && *value <= kMaxId) return static_cast<uint32_t>(*value);
    return fail(EINVAL, "{}: {} {} is none that a file can have", where_, key,
                text == nullptr ? std::to_string(from_header) : shown(*text));
  };
  OBD_TRY_ASSIGN(entry.uid, id("uid", header.uid));
  OBD_TRY_ASSIGN(entry.gid, id("gid", header.gid));
  if (entry.type == EntryType::char_device || entry.type == EntryType::block_device) {
    if (header.major < 0 || static_cast<uint64_t>(header.major) > kMaxMajor || header.minor < 0 ||
        static_cast<uint64_t>(header.minor) > kMaxMinor) {
      return fail(EINVAL, "{}: device {}:{} is none that there can be", where_, header.major,
                  header.minor);
    }
    entry.major = static_cast<uint32_t>(header.major);
    entry.minor = static_cast<uint32_t>(header.minor);
  }
  const auto time = [&](std::string_view key) -> Result<std::optional<Timestamp>> {
    const std::string* text = record(key);
    if (text == nullptr) return std::optional<Timestamp>();
    const auto value = parse_time(*text);
    if (!value) return fail(EINVAL, "{}: pax {} '{}' is no time", where_, key, shown(*text));
    return value;
  };
  OBD_TRY_ASSIGN(const auto mtime, time("mtime"));
  entry.mtime = mtime.value_or(Timestamp{header.mtime, 0});
  OBD_TRY_ASSIGN(entry.atime, time("atime"));
  OBD_TRY_ASSIGN(entry.ctime, time("ctime"));
  return {};
}

Result<void> TarReader::set_attributes(TarEntry& entry) {
  std::map<std::string, std::string> xattrs;
  for (const bool global : {true, false}) {
    for (const auto& [key, value] : global ? global_ : records_) {
      if (key.starts_with(kXattr)) {
        xattrs.insert_or_assign(key.substr(kXattr.size()), value);
      } else if (key.starts_with(kLibarchiveXattr)) {
        // Bsdtar writes both; this one is whole also where the other's name had to be changed.
        const auto decoded = decode_base64(value);
        if (!decoded) return fail(EINVAL, "{}: {} is no base64", where_, shown(key));
        xattrs.emplace(decode_percents(std::string_view(key).substr(kLibarchiveXattr.size())),
                       *decoded);
      } else if (key == kSelinux) {
        xattrs.emplace("security.selinux", value + '\0');
      } else if (key == "SCHILY.acl.ace") {
        return fail(ENOTSUP, "{}: has an NFSv4 ACL, and ext4 has none", where_);
      } else if (key == "SCHILY.fflags") {
        warn_once(key,
                  fmt::format("{}: the file flags ({}) are not kept, here and for other entries",
                              where_, shown(value)));
      }
    }
  }
  for (const auto& [name, value] : xattrs) {
    if (name.empty() || name.contains('\0')) {
      return fail(EINVAL, "{}: an extended attribute has no name, or a NUL in it", where_);
    }
    entry.xattrs.push_back({name, value});
  }
  if (const std::string* acl = record("SCHILY.acl.access")) entry.access_acl = *acl;
  if (const std::string* acl = record("SCHILY.acl.default")) entry.default_acl = *acl;
  return {};
}

}  // namespace obd::oci
