// Files and the host they live on: positioned reads and writes, no policy.
//
// The engine touches the host only through these two interfaces. The one implementation for real
// use is posix_file_system(); tests put a recording or failing one in its place.
//
// Units: bytes. Ownership: a File owns its descriptor and closes it when destroyed (closing loses
// nothing that sync() has not already reported). Thread-safety: all member functions may be called
// from many threads at once. Errors: EINTR and short transfers are dealt with inside; every error's
// sentence names the path, the operation and the offset.

#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace obd {

enum class Access { read_only, read_write };
enum class LockMode { shared, exclusive };

struct FileInfo {
  uint64_t size = 0;           // bytes
  uint64_t allocated = 0;      // bytes that the host file system has set aside for it
  uint64_t block_size = 4096;  // the unit in which the host file system allocates
  uint64_t device = 0;         // with inode: the file's identity
  uint64_t inode = 0;
  // When its content or attributes changed last (ctime), in nanoseconds of the host's clock.
  int64_t changed = 0;
  uint64_t links = 1;  // names that the file has
  mode_t mode = 0644;
  uid_t owner = 0;
  gid_t group = 0;
};

struct ByteRange {
  uint64_t offset = 0;
  uint64_t length = 0;
};

class File {
 public:
  virtual ~File() = default;

  [[nodiscard]] virtual const std::string& path() const = 0;

  // Reads until the buffer is full or the file ends; the value is the number of bytes read.
  [[nodiscard]] virtual Result<size_t> read_at(std::span<std::byte> out, uint64_t offset) const = 0;

  // Writes everything or fails. After a failure any prefix may have been written.
  [[nodiscard]] virtual Result<void> write_at(std::span<const std::byte> data, uint64_t offset) = 0;

  // Makes written data, and the size, stable on the device (fdatasync).
  [[nodiscard]] virtual Result<void> sync() = 0;

  [[nodiscard]] virtual Result<void> truncate(uint64_t size) = 0;

  // Gives the range's blocks back; it reads as zeros afterwards and the size stays.
  // EOPNOTSUPP where the host file system cannot.
  [[nodiscard]] virtual Result<void> punch_hole(ByteRange range) = 0;

  // Asks the host to read the range into its page cache; only a hint.
  virtual void prefetch(ByteRange range) const = 0;

  // Whether the byte can be read without waiting for the device; only a hint, and true where the
  // host does not tell.
  [[nodiscard]] virtual bool is_near(uint64_t offset) const = 0;

  [[nodiscard]] virtual Result<FileInfo> info() const = 0;

  // The first run of data at or after offset (SEEK_DATA, SEEK_HOLE), clipped to the file's end;
  // nullopt when only holes follow.
  [[nodiscard]] virtual Result<std::optional<ByteRange>> next_data(uint64_t offset) const = 0;

  // Takes an open-file-description lock on the whole file, without waiting. When another process
  // (or another File) holds a conflicting one: EBUSY, and the sentence names the holder's pid. The
  // lock lasts until this File is destroyed, and survives fork. EINVAL when this File has one.
  [[nodiscard]] virtual Result<void> lock(LockMode mode) = 0;

  // Names the calling process as the lock's holder: for a server that has forked since lock().
  // Does nothing when this File holds no lock.
  [[nodiscard]] virtual Result<void> refresh_lock_holder() const = 0;

  // For a file that will take another one's place. Needs no privilege when the owner and the group
  // are already the given ones.
  [[nodiscard]] virtual Result<void> set_owner_and_mode(uid_t owner, gid_t group, mode_t mode) = 0;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  [[nodiscard]] virtual Result<std::unique_ptr<File>> open(const std::string& path,
                                                           Access access) = 0;

  // Creates a new file for reading and writing; EEXIST when the name is taken.
  [[nodiscard]] virtual Result<std::unique_ptr<File>> create(const std::string& path,
                                                             mode_t mode) = 0;

  // Replaces `to` in one step.
  [[nodiscard]] virtual Result<void> rename(const std::string& from, const std::string& to) = 0;
  // As rename(), but EEXIST when `to` exists.
  [[nodiscard]] virtual Result<void> rename_new(const std::string& from, const std::string& to) = 0;

  [[nodiscard]] virtual Result<void> remove(const std::string& path) = 0;

  // Makes the folder's names stable on the device.
  [[nodiscard]] virtual Result<void> sync_directory(const std::string& path) = 0;

  [[nodiscard]] virtual Result<bool> exists(const std::string& path) = 0;

  // The path with every symbolic link resolved; the file must exist.
  [[nodiscard]] virtual Result<std::string> canonical(const std::string& path) = 0;

  // Identifies this boot of the host: pages written under the same boot id have not been lost.
  [[nodiscard]] virtual Result<std::string> boot_id() = 0;
};

// The host itself. Never destroyed.
FileSystem& posix_file_system();

// The folder part of a path: "." when it has none.
std::string directory_of(const std::string& path);

// Reads exactly out.size() bytes; a file that ends before is EIO with a sentence.
Result<void> read_exactly(const File& file, std::span<std::byte> out, uint64_t offset);

// Reads a whole file into memory; longer than max_bytes is EFBIG.
Result<std::string> read_whole(FileSystem& fs, const std::string& path, uint64_t max_bytes);

// Replaces (or makes) a file so that a crash leaves the old or the new content, never a mixture:
// written under a temporary name beside it, synced, renamed, the folder synced. An existing file's
// mode and owner are kept, and a symbolic link goes on pointing at what it did. Two callers must
// not replace the same file at the same time.
Result<void> replace_file(FileSystem& fs, const std::string& path, std::string_view content);

}  // namespace obd
