// One connection, used by one thread at a time: calls take microseconds, and a commit one fsync.
// The journal is a write-ahead log with synchronous=FULL, so what commit has returned from is
// stable.

#include "tools/snapshotter/store.h"

#include <sqlite3.h>

#include <array>
#include <cerrno>
#include <chrono>

#include "tools/snapshotter/log.h"

namespace obd::snapshotter {
namespace {

constexpr int64_t kSchemaVersion = 1;
constexpr int kBusyTimeout = 10'000;            // milliseconds
constexpr int32_t kApplicationId = 0x6F626473;  // "obds"

// `seen` is 0 until the snapshot is whole. `commit_to` is the name that a commit that has begun
// gives. Labels of such a commit are kept apart by `pending`.
constexpr const char* kSchema = R"(
  CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    parent INTEGER REFERENCES snapshots (id) ON DELETE RESTRICT,
    kind INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
    shape INTEGER NOT NULL CHECK (shape IN (0, 1, 2)),
    seen INTEGER NOT NULL CHECK (seen IN (0, 1)),
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    size INTEGER NOT NULL DEFAULT 0,
    inodes INTEGER NOT NULL DEFAULT 0,
    commit_to TEXT);
  CREATE INDEX snapshots_by_parent ON snapshots (parent);
  CREATE TABLE labels (
    snapshot INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    pending INTEGER NOT NULL CHECK (pending IN (0, 1)),
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (snapshot, pending, name)) WITHOUT ROWID;
)";

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

std::string_view to_text(Kind kind) {
  switch (kind) {
    case Kind::view:
      return "view";
    case Kind::active:
      return "active";
    case Kind::committed:
      break;
  }
  return "committed";
}

// A prepared statement; parameters are bound in the order of their question marks.
class Store::Statement {
 public:
  Statement(const Store& store, std::string_view sql) : store_(store) {
    prepared_ = sqlite3_prepare_v2(store.database_.get(), sql.data(), static_cast<int>(sql.size()),
                                   &statement_, nullptr) == SQLITE_OK;
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& bind(int64_t number) {
    sqlite3_bind_int64(statement_, ++bound_, number);
    return *this;
  }
  Statement& bind(const std::string& text) {
    sqlite3_bind_text64(statement_, ++bound_, text.data(), text.size(), SQLITE_TRANSIENT,
                        SQLITE_UTF8);
    return *this;
  }
  // Number 0 as no number at all.
  Statement& bind_or_null(int64_t number) {
    if (number != 0) return bind(number);
    sqlite3_bind_null(statement_, ++bound_);
    return *this;
  }

  // True: there is a row; false: done.
  Result<bool> step() {
    const int code = prepared_ ? sqlite3_step(statement_) : SQLITE_ERROR;
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    return store_.wrong("cannot be read or written");
  }
  Result<void> run() {
    OBD_TRY(step());
    return {};
  }

  [[nodiscard]] int64_t number(int column) const {
    return sqlite3_column_int64(statement_, column);
  }
  [[nodiscard]] std::string text(int column) const {
    const auto* const bytes = sqlite3_column_text(statement_, column);
    const int size = sqlite3_column_bytes(statement_, column);
    return bytes == nullptr
               ? std::string()
               : std::string(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
  }

 private:
  const Store& store_;
  sqlite3_stmt* statement_ = nullptr;
  bool prepared_ = false;
  int bound_ = 0;
};

// Rolled back unless it is committed.
class Store::Transaction {
 public:
  explicit Transaction(const Store& store) : store_(store) {}
  ~Transaction() {
    if (open_) static_cast<void>(store_.execute("ROLLBACK"));
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  Result<void> begin() {
    OBD_TRY(store_.execute("BEGIN IMMEDIATE"));
    open_ = true;
    return {};
  }
  Result<void> commit() {
    OBD_TRY(store_.execute("COMMIT"));
    open_ = false;
    return {};
  }

 private:
  const Store& store_;
  bool open_ = false;
};

void Store::Closer::operator()(sqlite3* database) const { sqlite3_close_v2(database); }

Store::Store(sqlite3* database) : database_(database), mutex_(std::make_unique<std::mutex>()) {}
Store::~Store() = default;

std::unexpected<Error> Store::wrong(std::string_view doing) const {
  const int code = sqlite3_errcode(database_.get()) & 0xFF;
  const char* const name = sqlite3_db_filename(database_.get(), "main");
  return fail(code == SQLITE_FULL ? ENOSPC : EIO, "{}: {}: {}", name == nullptr ? "database" : name,
              doing, sqlite3_errmsg(database_.get()));
}

Result<void> Store::execute(const char* sql) const {
  if (sqlite3_exec(database_.get(), sql, nullptr, nullptr, nullptr) == SQLITE_OK) return {};
  return wrong("cannot be written");
}

Result<Store> Store::open(const std::string& path) {
  sqlite3* database = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &database,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  Store store(database);  // there is one even after a failure, unless memory is out
  if (code != SQLITE_OK) {
    return fail(EIO, "{}: cannot be opened: {}", path,
                database == nullptr ? "out of memory" : sqlite3_errmsg(database));
  }
  // Somebody looks at it with another program, or backs it up.
  sqlite3_busy_timeout(database, kBusyTimeout);
  OBD_TRY(store.prepare_database(path));
  return store;
}

Result<void> Store::prepare_database(const std::string& path) {
  OBD_TRY(
      execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; "
              "PRAGMA foreign_keys = ON; PRAGMA locking_mode = NORMAL"));
  int64_t version = 0;
  int64_t application = 0;
  {
    Statement statement(*this, "PRAGMA user_version");
    OBD_TRY(statement.step());
    version = statement.number(0);
  }
  {
    Statement statement(*this, "PRAGMA application_id");
    OBD_TRY(statement.step());
    application = statement.number(0);
  }
  if (version == 0 && application == 0) {
    Transaction transaction(*this);
    OBD_TRY(transaction.begin());
    OBD_TRY(execute(kSchema));
    OBD_TRY(execute(fmt::format("PRAGMA user_version = {}; PRAGMA application_id = {}",
                                kSchemaVersion, kApplicationId)
                        .c_str()));
    return transaction.commit();
  }
  if (application != kApplicationId) {
    return fail(EINVAL, "{}: is the database of another program", path);
  }
  if (version != kSchemaVersion) {
    return fail(EINVAL, "{}: is of version {}, and this program knows version {} only", path,
                version, kSchemaVersion);
  }
  return {};
}

// ---- reading ----

Result<Labels> Store::read_labels(int64_t id, bool pending) const {
  Statement statement(*this, "SELECT name, value FROM labels WHERE snapshot = ? AND pending = ?");
  statement.bind(id).bind(int64_t{pending});
  Labels labels;
  while (true) {
    OBD_TRY_ASSIGN(const bool row, statement.step());
    if (!row) return labels;
    labels.emplace(statement.text(0), statement.text(1));
  }
}

Result<std::vector<Snapshot>> Store::select(std::string_view rest,
                                            const std::vector<std::string>& texts,
                                            const std::vector<int64_t>& numbers) const {
  Statement statement(
      *this, fmt::format("SELECT s.id, s.key, p.key, s.parent, s.kind, s.shape, s.created, "
                         "s.updated, s.size, s.inodes FROM snapshots s "
                         "LEFT JOIN snapshots p ON p.id = s.parent {}",
                         rest));
  for (const std::string& text : texts) statement.bind(text);
  for (const int64_t number : numbers) statement.bind(number);
  std::vector<Snapshot> snapshots;
  while (true) {
    OBD_TRY_ASSIGN(const bool row, statement.step());
    if (!row) break;
    snapshots.push_back({.id = statement.number(0),
                         .key = statement.text(1),
                         .parent = statement.text(2),
                         .parent_id = statement.number(3),
                         .kind = static_cast<Kind>(statement.number(4)),
                         .shape = static_cast<Shape>(statement.number(5)),
                         .created = statement.number(6),
                         .updated = statement.number(7),
                         .labels = {},
                         .usage = {.size = static_cast<uint64_t>(statement.number(8)),
                                   .inodes = static_cast<uint64_t>(statement.number(9))}});
  }
  for (Snapshot& snapshot : snapshots) {
    OBD_TRY_ASSIGN(snapshot.labels, read_labels(snapshot.id, false));
  }
  return snapshots;
}

Result<std::optional<Snapshot>> Store::find_one(std::string_view rest,
                                                const std::vector<std::string>& texts,
                                                const std::vector<int64_t>& numbers) const {
  OBD_TRY_ASSIGN(auto found, select(rest, texts, numbers));
  if (found.empty()) return std::nullopt;
  return std::move(found.front());
}

Result<Snapshot> Store::find_seen(const std::string& key) const {
  OBD_TRY_ASSIGN(auto found, find_one("WHERE s.key = ? AND s.seen = 1", {key}, {}));
  if (!found) return fail(ENOENT, "snapshot {} does not exist", shown(key));
  return std::move(*found);
}

Result<Snapshot> Store::find(const std::string& key) const {
  const std::lock_guard guard(*mutex_);
  return find_seen(key);
}

Result<std::optional<std::string>> Store::find_id(int64_t id) const {
  const std::lock_guard guard(*mutex_);
  OBD_TRY_ASSIGN(auto found, find_one("WHERE s.id = ?", {}, {id}));
  if (!found) return std::nullopt;
  return std::move(found->key);
}

Result<int64_t> Store::last_id() const {
  const std::lock_guard guard(*mutex_);
  Statement statement(*this, "SELECT seq FROM sqlite_sequence WHERE name = 'snapshots'");
  OBD_TRY_ASSIGN(const bool row, statement.step());
  return row ? statement.number(0) : 0;
}

Result<std::vector<Snapshot>> Store::ancestors(const Snapshot& snapshot) const {
  const std::lock_guard guard(*mutex_);
  std::vector<Snapshot> chain;
  // A parent is there before its child and never changes, so its number is less: no loops.
  for (int64_t id = snapshot.parent_id; id != 0; id = chain.back().parent_id) {
    OBD_TRY_ASSIGN(auto parent, find_one("WHERE s.id = ?", {}, {id}));
    if (!parent) return fail(EIO, "the database names a parent {} that it does not hold", id);
    chain.push_back(std::move(*parent));
  }
  return chain;
}

Result<std::vector<Snapshot>> Store::list(const std::string& after, size_t limit) const {
  const std::lock_guard guard(*mutex_);
  return select("WHERE s.key > ? AND s.seen = 1 ORDER BY s.key LIMIT ?", {after},
                {static_cast<int64_t>(limit)});
}

Result<bool> Store::has_users(int64_t id) const {
  const std::lock_guard guard(*mutex_);
  // Down from the snapshot, through committed folders, to what is not committed and is no disk that
  // it writes to itself.
  Statement statement(*this, R"(
    WITH RECURSIVE above (id, kind, shape) AS (
      SELECT id, kind, shape FROM snapshots WHERE parent = ?
      UNION ALL
      SELECT s.id, s.kind, s.shape FROM snapshots s JOIN above a ON s.parent = a.id
        WHERE a.kind = 3 AND a.shape = 0)
    SELECT EXISTS (SELECT 1 FROM above WHERE kind = 1 OR (kind = 2 AND shape = 0)))");
  statement.bind(id);
  OBD_TRY(statement.step());
  return statement.number(0) != 0;
}

Result<std::map<Kind, uint64_t>> Store::count() const {
  const std::lock_guard guard(*mutex_);
  Statement statement(*this, "SELECT kind, COUNT(*) FROM snapshots WHERE seen = 1 GROUP BY kind");
  std::map<Kind, uint64_t> counts = {{Kind::view, 0}, {Kind::active, 0}, {Kind::committed, 0}};
  while (true) {
    OBD_TRY_ASSIGN(const bool row, statement.step());
    if (!row) return counts;
    counts[static_cast<Kind>(statement.number(0))] = static_cast<uint64_t>(statement.number(1));
  }
}

Result<std::vector<Snapshot>> Store::unfinished() const {
  const std::lock_guard guard(*mutex_);
  return select("WHERE s.seen = 0 ORDER BY s.id", {}, {});
}

Result<std::vector<PendingCommit>> Store::pending_commits() const {
  const std::lock_guard guard(*mutex_);
  OBD_TRY_ASSIGN(auto snapshots, select("WHERE s.commit_to IS NOT NULL ORDER BY s.id", {}, {}));
  std::vector<PendingCommit> commits;
  for (Snapshot& snapshot : snapshots) {
    Statement statement(*this, "SELECT commit_to FROM snapshots WHERE id = ?");
    statement.bind(snapshot.id);
    OBD_TRY(statement.step());
    OBD_TRY_ASSIGN(Labels labels, read_labels(snapshot.id, true));
    commits.push_back(
        {.snapshot = std::move(snapshot), .name = statement.text(0), .labels = std::move(labels)});
  }
  return commits;
}

// ---- writing ----

Result<void> Store::write_labels(int64_t id, bool pending, const Labels& labels) {
  {
    Statement statement(*this, "DELETE FROM labels WHERE snapshot = ? AND pending = ?");
    OBD_TRY(statement.bind(id).bind(int64_t{pending}).run());
  }
  for (const auto& [name, value] : labels) {
    if (value.empty()) continue;
    Statement statement(*this, "INSERT INTO labels VALUES (?, ?, ?, ?)");
    OBD_TRY(statement.bind(id).bind(int64_t{pending}).bind(name).bind(value).run());
  }
  return {};
}

Result<Snapshot> Store::begin(const NewSnapshot& snapshot) {
  const std::lock_guard guard(*mutex_);
  Transaction transaction(*this);
  OBD_TRY(transaction.begin());
  int64_t parent = 0;
  if (!snapshot.parent.empty()) {
    auto found = find_seen(snapshot.parent);
    if (!found && found.error().code == ENOENT) {
      return fail(ENOENT, "parent snapshot {} does not exist", shown(snapshot.parent));
    }
    OBD_TRY(found);
    if (found->kind != Kind::committed) {
      return fail(EINVAL, "parent {} is not a committed snapshot", shown(snapshot.parent));
    }
    parent = found->id;
  }
  OBD_TRY_ASSIGN(const auto taken, find_one("WHERE (s.key = ? OR s.commit_to = ?)",
                                            {snapshot.key, snapshot.key}, {}));
  if (taken) return fail(EEXIST, "snapshot {} already exists", shown(snapshot.key));
  const int64_t time = now();
  {
    Statement statement(*this,
                        "INSERT INTO snapshots (key, parent, kind, shape, seen, created, updated) "
                        "VALUES (?, ?, ?, ?, 0, ?, ?)");
    statement.bind(snapshot.key).bind_or_null(parent);
    statement.bind(static_cast<int64_t>(snapshot.kind)).bind(static_cast<int64_t>(snapshot.shape));
    OBD_TRY(statement.bind(time).bind(time).run());
  }
  const int64_t id = sqlite3_last_insert_rowid(database_.get());
  OBD_TRY(write_labels(id, false, snapshot.labels));
  OBD_TRY_ASSIGN(auto made, find_one("WHERE s.id = ?", {}, {id}));
  if (!made) return fail(EIO, "the database has lost snapshot {}", id);
  OBD_TRY(transaction.commit());
  return std::move(*made);
}

Result<Snapshot> Store::finish(int64_t id) {
  const std::lock_guard guard(*mutex_);
  Transaction transaction(*this);
  OBD_TRY(transaction.begin());
  {
    Statement statement(*this, "UPDATE snapshots SET seen = 1 WHERE id = ?");
    OBD_TRY(statement.bind(id).run());
  }
  OBD_TRY_ASSIGN(auto made, find_one("WHERE s.id = ?", {}, {id}));
  if (!made) return fail(EIO, "the database has lost snapshot {}", id);
  OBD_TRY(transaction.commit());
  return std::move(*made);
}

Result<void> Store::abandon(int64_t id) {
  const std::lock_guard guard(*mutex_);
  Statement statement(*this, "DELETE FROM snapshots WHERE id = ? AND seen = 0");
  return statement.bind(id).run();
}

Result<Snapshot> Store::update_labels(const std::string& key, const Labels& labels,
                                      const std::optional<std::vector<std::string>>& names) {
  const std::lock_guard guard(*mutex_);
  Transaction transaction(*this);
  OBD_TRY(transaction.begin());
  OBD_TRY_ASSIGN(Snapshot snapshot, find_seen(key));
  Labels next = names ? snapshot.labels : labels;
  if (names) {
    for (const std::string& name : *names) {
      const auto given = labels.find(name);
      next[name] = given == labels.end() ? "" : given->second;
    }
  }
  OBD_TRY(write_labels(snapshot.id, false, next));
  Statement statement(*this, "UPDATE snapshots SET updated = ? WHERE id = ?");
  OBD_TRY(statement.bind(now()).bind(snapshot.id).run());
  OBD_TRY_ASSIGN(Snapshot updated, find_seen(key));
  OBD_TRY(transaction.commit());
  return updated;
}

Result<Snapshot> Store::commit_begins(const std::string& key, const std::string& name,
                                      const Labels& labels) {
  const std::lock_guard guard(*mutex_);
  Transaction transaction(*this);
  OBD_TRY(transaction.begin());
  OBD_TRY_ASSIGN(const auto taken, find_one("WHERE (s.key = ? OR (s.commit_to = ? AND s.key <> ?))",
                                            {name, name, key}, {}));
  if (taken) return fail(EEXIST, "committed snapshot {} already exists", shown(name));
  OBD_TRY_ASSIGN(Snapshot snapshot, find_seen(key));
  if (snapshot.kind != Kind::active) {
    return fail(EBUSY, "snapshot {} is not active", shown(key));
  }
  {
    Statement statement(*this, "UPDATE snapshots SET commit_to = ? WHERE id = ?");
    OBD_TRY(statement.bind(name).bind(snapshot.id).run());
  }
  OBD_TRY(write_labels(snapshot.id, true, labels));
  OBD_TRY(transaction.commit());
  return snapshot;
}

Result<void> Store::commit_failed(int64_t id) {
  const std::lock_guard guard(*mutex_);
  Transaction transaction(*this);
  OBD_TRY(transaction.begin());
  {
    Statement statement(*this, "UPDATE snapshots SET commit_to = NULL WHERE id = ?");
    OBD_TRY(statement.bind(id).run());
  }
  OBD_TRY(write_labels(id, true, {}));
  return transaction.commit();
}

Result<void> Store::commit(int64_t id, Shape shape, const Usage& usage, const Labels& extra) {
  const std::lock_guard guard(*mutex_);
  Transaction transaction(*this);
  OBD_TRY(transaction.begin());
  OBD_TRY_ASSIGN(Labels labels, read_labels(id, true));
  for (const auto& [name, value] : extra) labels[name] = value;
  OBD_TRY(write_labels(id, false, labels));
  OBD_TRY(write_labels(id, true, {}));
  Statement statement(*this,
                      "UPDATE snapshots SET key = commit_to, commit_to = NULL, kind = 3, "
                      "shape = ?, created = ?, updated = ?, size = ?, inodes = ? "
                      "WHERE id = ? AND commit_to IS NOT NULL");
  const int64_t time = now();
  statement.bind(static_cast<int64_t>(shape)).bind(time).bind(time);
  statement.bind(static_cast<int64_t>(usage.size)).bind(static_cast<int64_t>(usage.inodes));
  OBD_TRY(statement.bind(id).run());
  return transaction.commit();
}

Result<Snapshot> Store::check_removable(const std::string& key) const {
  const std::lock_guard guard(*mutex_);
  OBD_TRY_ASSIGN(Snapshot snapshot, find_seen(key));
  OBD_TRY_ASSIGN(const auto child, find_one("WHERE s.parent = ? LIMIT 1", {}, {snapshot.id}));
  if (child) {
    return fail(EBUSY, "cannot remove snapshot {}: it has a child, {}", shown(key),
                shown(child->key));
  }
  return snapshot;
}

Result<void> Store::remove(const std::string& key) {
  // The foreign key refuses one with children should one have come meanwhile.
  OBD_TRY_ASSIGN(const Snapshot snapshot, check_removable(key));
  const std::lock_guard guard(*mutex_);
  Statement statement(*this, "DELETE FROM snapshots WHERE id = ?");
  const auto removed = statement.bind(snapshot.id).run();
  if (!removed && (sqlite3_errcode(database_.get()) & 0xFF) == SQLITE_CONSTRAINT) {
    return fail(EBUSY, "cannot remove snapshot {}: it has a child", shown(key));
  }
  return removed;
}

}  // namespace obd::snapshotter
