// What is known of all snapshots, in an SQLite database: keys, parents, kinds, labels, times.
//
// A snapshot's life in here:
//
//   begin()   a row that only its maker sees: it keeps the key, and its parent cannot be removed
//   finish()  from now on everybody sees it
//   commit_begins(), commit()   what it will be called is written down before anything is sealed,
//             so that a commit that was cut short after that is finished at the next start
//   remove()  the row goes first, its folder later: a folder without a row belongs to nobody
//
// Every change is one transaction, on stable storage when the call returns.
//
// Thread-safety: all functions may be called from any thread. Errors: ENOENT, EEXIST, EINVAL and
// EBUSY (a precondition fails) are what containerd's snapshotters say in that case; everything else
// is EIO or ENOSPC.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

struct sqlite3;

namespace obd::snapshotter {

// As on the wire.
enum class Kind { view = 1, active = 2, committed = 3 };
std::string_view to_text(Kind kind);

// Where the content of a snapshot lies, and what its mounts are.
enum class Shape {
  folder = 0,  // in fs/: a bind or overlay mount
  dir = 1,     // on a disk, mounted on block/mountpoint: a bind mount
  dev = 2,     // on a disk: the device
};

using Labels = std::map<std::string, std::string>;

struct Usage {
  uint64_t size = 0;  // bytes
  uint64_t inodes = 0;
};

struct Snapshot {
  int64_t id = 0;
  std::string key;
  std::string parent;     // its key; empty: none
  int64_t parent_id = 0;  // 0: none
  Kind kind = Kind::active;
  Shape shape = Shape::folder;
  int64_t created = 0;  // nanoseconds since 1970
  int64_t updated = 0;
  Labels labels;
  Usage usage;  // of a committed one
};

struct NewSnapshot {
  std::string key;
  std::string parent = {};  // empty: none
  Kind kind = Kind::active;
  Shape shape = Shape::folder;
  Labels labels = {};
};

// What an interrupted commit was about to do.
struct PendingCommit {
  Snapshot snapshot;
  std::string name;
  Labels labels;
};

class Store {
 public:
  // Makes the database when there is none.
  static Result<Store> open(const std::string& path);
  Store(Store&&) noexcept = default;
  ~Store();

  Result<Snapshot> begin(const NewSnapshot& snapshot);
  Result<Snapshot> finish(int64_t id);
  // Takes back begin().
  Result<void> abandon(int64_t id);

  Result<Snapshot> find(const std::string& key) const;
  // Whether there is any row, seen or not, and of which key.
  Result<std::optional<std::string>> find_id(int64_t id) const;
  // The highest number that was ever given; 0: none was. No number is given twice.
  Result<int64_t> last_id() const;
  // The snapshot's ancestors, the nearest first.
  Result<std::vector<Snapshot>> ancestors(const Snapshot& snapshot) const;
  // All that are seen, in order of their keys: those after `after`, at most `limit`.
  Result<std::vector<Snapshot>> list(const std::string& after, size_t limit) const;
  // Snapshots that are not committed and have this one among their ancestors with only folders in
  // between, seen or not: those that use its disk.
  Result<bool> has_users(int64_t id) const;
  Result<std::map<Kind, uint64_t>> count() const;

  // Replaces all labels, or those that `names` lists; one with an empty value is removed.
  Result<Snapshot> update_labels(const std::string& key, const Labels& labels,
                                 const std::optional<std::vector<std::string>>& names);

  // Checks what commit() will, and writes down what it is to do.
  Result<Snapshot> commit_begins(const std::string& key, const std::string& name,
                                 const Labels& labels);
  Result<void> commit_failed(int64_t id);
  // `shape` is what it has become; `extra` are labels besides those of commit_begins().
  Result<void> commit(int64_t id, Shape shape, const Usage& usage, const Labels& extra);

  // Refuses one that has children.
  Result<Snapshot> check_removable(const std::string& key) const;
  Result<void> remove(const std::string& key);

  // Left behind by who was killed.
  Result<std::vector<Snapshot>> unfinished() const;
  Result<std::vector<PendingCommit>> pending_commits() const;

 private:
  class Statement;
  class Transaction;
  struct Closer {
    void operator()(sqlite3* database) const;
  };

  explicit Store(sqlite3* database);
  Result<void> prepare_database(const std::string& path);
  Result<void> execute(const char* sql) const;
  Result<std::vector<Snapshot>> select(std::string_view rest, const std::vector<std::string>& texts,
                                       const std::vector<int64_t>& numbers) const;
  Result<std::optional<Snapshot>> find_one(std::string_view rest,
                                           const std::vector<std::string>& texts,
                                           const std::vector<int64_t>& numbers) const;
  Result<Snapshot> find_seen(const std::string& key) const;
  Result<void> write_labels(int64_t id, bool pending, const Labels& labels);
  Result<Labels> read_labels(int64_t id, bool pending) const;
  std::unexpected<Error> wrong(std::string_view doing) const;

  std::unique_ptr<sqlite3, Closer> database_;
  std::unique_ptr<std::mutex> mutex_;
};

}  // namespace obd::snapshotter
