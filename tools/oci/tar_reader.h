// Reads the tar file of a layer, entry by entry, front to back.
//
// Dialects: v7, ustar, star, GNU (long names and links, base-256 numbers, sparse files), pax with
// global headers, pax sparse files 0.0, 0.1 and 1.0. What is read is untrusted: every number is
// checked, and memory is taken by what has come, never by what is announced.
//
// Thread-safety: none. Errors: EINVAL for what is no tar file, damaged or cut off, ENOTSUP for
// kinds of entries that cannot be kept; the sentence names the file, where in it and which field.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/io/file.h"
#include "tools/oci/byte_stream.h"
#include "tools/oci/tar_header.h"

namespace obd::oci {

struct Timestamp {
  int64_t seconds = 0;
  uint32_t nanoseconds = 0;
  bool operator==(const Timestamp&) const = default;
};

struct Xattr {
  std::string name;
  std::string value;  // any bytes
  bool operator==(const Xattr&) const = default;
};

enum class EntryType { file, directory, symlink, hard_link, char_device, block_device, fifo };

struct TarEntry {
  EntryType type = EntryType::file;
  std::string path;   // as the tar file has it: it may be absolute, or hold ".."; no NUL
  std::string link;   // of links: the target
  uint32_t mode = 0;  // permissions, setuid, setgid and sticky bit
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t major = 0;  // of devices
  uint32_t minor = 0;
  uint64_t size = 0;            // of a file, in bytes, holes included
  std::vector<ByteRange> data;  // of a file: where it is not a hole, in order, none empty
  Timestamp mtime;
  std::optional<Timestamp> atime;
  std::optional<Timestamp> ctime;
  std::vector<Xattr> xattrs;
  std::string access_acl;   // as text; empty: none
  std::string default_acl;  // the same
};

class TarReader {
 public:
  // The stream outlives the reader.
  explicit TarReader(ByteStream& stream) : stream_(stream) {}

  // The next entry; what was not read of the last one's content is skipped. nullopt at the end of
  // the archive, to which the whole stream has been read then.
  Result<std::optional<TarEntry>> next();

  // Reads exactly so much more of the current entry's content: its ranges of data one after the
  // other.
  Result<void> read(std::span<std::byte> out);

  // "FILE: entry 'PATH' at byte N", of the current entry.
  [[nodiscard]] const std::string& where() const { return where_; }

  // What a person should know although everything can be read.
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  using Records = std::map<std::string, std::string, std::less<>>;

  Result<bool> read_block(std::span<std::byte, kTarBlock> block);
  Result<void> read_stored(std::span<std::byte> out);
  Result<void> skip(uint64_t bytes);
  Result<std::string> read_text(uint64_t size, std::string_view what);
  Result<void> read_records(const TarHeader& header, Records& into);
  Result<bool> end_of_archive();
  Result<void> drain();

  Result<std::optional<TarEntry>> make_entry(const TarHeader& header, TarBlock block);
  Result<void> set_names(TarEntry& entry, const TarHeader& header);
  Result<void> set_numbers(TarEntry& entry, const TarHeader& header);
  Result<void> set_attributes(TarEntry& entry);
  Result<void> set_content(TarEntry& entry, TarBlock block, bool old_sparse);
  Result<void> read_map_in_content(TarEntry& entry);
  Result<void> check_map(TarEntry& entry) const;
  void warn_once(std::string_view key, std::string sentence);

  // The value of a pax record that counts for the current entry; null when there is none.
  [[nodiscard]] const std::string* record(std::string_view key) const;

  ByteStream& stream_;
  uint64_t at_ = 0;       // in the stream
  uint64_t content_ = 0;  // stored bytes of the current entry that have not been read
  uint64_t padding_ = 0;  // bytes after them, up to the next header
  bool ended_ = false;
  std::string where_;
  Records global_;
  uint64_t global_bytes_ = 0;  // of all global headers
  // Of the entry to come:
  Records records_;
  uint64_t record_bytes_ = 0;
  std::optional<std::string> long_name_;
  std::optional<std::string> long_link_;
  std::vector<std::string> warnings_;
  std::map<std::string, bool, std::less<>> warned_;
};

}  // namespace obd::oci
