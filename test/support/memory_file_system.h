// A host in memory: a FileSystem that tests can record, fail, fill up and cut the power of.
//
// Files are sparse in blocks of 4096 bytes, up to 8 EiB; folders exist by being named in a path.
// Locks conflict between two File objects, as open-file-description locks do. It behaves like a
// careful host: writes are in the cache at once and on the device only after sync(), names only
// after sync_directory(). What is on the device after a crash is computed from the recording, by
// test/support/crash_disk.h.
//
// Ownership: Files keep their contents alive but must not outlive their file system.
// Thread-safety: all functions, those of the Files too, may be called from any thread.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/file.h"
#include "test/support/random.h"
#include "test/support/trace.h"

namespace obd::test {

// The operations that can be made to fail.
enum class Operation {
  open,
  create,
  read,
  write,
  truncate,
  punch,
  sync,
  rename,
  remove,
  sync_directory
};

struct Fault {
  Operation operation = Operation::write;
  uint64_t nth = 1;              // of the matching operations from now on, counted from 1
  bool sticky = false;           // all later ones fail as well
  int code = 5;                  // the errno; EIO
  std::string path_suffix = {};  // only operations on paths that end so
  // Bytes that a failing write leaves behind. Over bytes that are there it stops between two
  // sectors.
  size_t prefix = 0;
};

class MemoryFileSystem final : public FileSystem {
 public:
  explicit MemoryFileSystem(std::string boot_id = "first-boot");
  // A host whose disk has this on it, all of it stable.
  MemoryFileSystem(const DiskState& disk, std::string boot_id);
  ~MemoryFileSystem() override;

  // What is in the cache: every operation applied.
  [[nodiscard]] DiskState state() const;
  void set_boot_id(std::string boot_id);
  // Bytes that the blocks of all named files take.
  [[nodiscard]] uint64_t allocated() const;

  // Recording: from now on until the trace is taken, continuing an earlier trace.
  void start_recording(Trace so_far = {});
  [[nodiscard]] Trace take_trace();
  // Puts a mark into the recording and returns its position there.
  size_t mark(std::string_view text);

  // Faults.
  void inject(Fault fault);
  void clear_faults();
  // How many operations an injected fault has failed since clear_faults().
  [[nodiscard]] uint64_t faults_hit() const;
  // How many operations of a kind there have been.
  [[nodiscard]] uint64_t count(Operation operation) const;
  // Writes that need more blocks than this, over all files, end early with ENOSPC.
  void set_space_limit(std::optional<uint64_t> bytes);
  // sync() and sync_directory() of paths for which this is true do nothing and report success.
  void ignore_syncs(std::function<bool(const std::string& path)> ignored);
  // Makes threads meet: transfers go in steps of one sector, with pauses between them.
  void disturb(uint64_t seed);

  // FileSystem.
  Result<std::unique_ptr<File>> open(const std::string& path, Access access) override;
  Result<std::unique_ptr<File>> create(const std::string& path, mode_t mode) override;
  Result<void> rename(const std::string& from, const std::string& to) override;
  Result<void> rename_new(const std::string& from, const std::string& to) override;
  Result<void> remove(const std::string& path) override;
  Result<void> sync_directory(const std::string& path) override;
  Result<bool> exists(const std::string& path) override;
  Result<std::string> canonical(const std::string& path) override;
  Result<std::string> boot_id() override;

 private:
  friend class MemoryFile;

  struct Inode {
    uint64_t number = 0;
    SparseBytes bytes;
    bool named = true;
    FileInfo info;  // mode, owner, group and changed only
    std::map<const File*, LockMode> locks;
  };
  struct Failure {
    int code = 0;
    size_t prefix = 0;
  };

  // All of these: under mutex_.
  std::optional<Failure> failure(Operation operation, const std::string& path);
  void record(TraceEntry entry);
  Result<void> rename_locked(const std::string& from, const std::string& to, bool replace);
  void forget_name(const std::string& path);
  void pause();
  Result<void> write_locked(Inode& inode, const std::string& path, std::span<const std::byte> data,
                            uint64_t offset);

  mutable std::mutex mutex_;
  std::string boot_id_;
  std::map<std::string, std::shared_ptr<Inode>> names_;
  uint64_t next_inode_ = 1;
  bool recording_ = false;
  Trace trace_;
  struct Armed {
    Fault fault;
    uint64_t seen = 0;
  };
  std::vector<Armed> faults_;
  uint64_t faults_hit_ = 0;
  std::map<Operation, uint64_t> counts_;
  std::optional<uint64_t> space_limit_;
  uint64_t allocated_ = 0;
  std::function<bool(const std::string&)> ignored_syncs_;
  std::optional<Random> disturbance_;
};

}  // namespace obd::test
