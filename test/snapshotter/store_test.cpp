#include "tools/snapshotter/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "test/unit/scratch_folder.h"

namespace obd::snapshotter {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

class StoreTest : public testing::Test {
 protected:
  StoreTest() { reopen(); }

  void reopen() {
    store_.reset();
    auto opened = Store::open(path_);
    ASSERT_TRUE(opened) << opened.error().message;
    store_.emplace(std::move(*opened));
  }

  Result<Snapshot> add(const std::string& key, const std::string& parent, Kind kind = Kind::active,
                       Shape shape = Shape::folder) {
    OBD_TRY_ASSIGN(
        const Snapshot begun,
        store_->begin(
            {.key = key, .parent = parent, .kind = kind, .shape = shape, .labels = {{"a", "1"}}}));
    return store_->finish(begun.id);
  }

  Result<void> commit(const std::string& key, const std::string& name,
                      Shape shape = Shape::folder) {
    OBD_TRY_ASSIGN(const Snapshot snapshot, store_->commit_begins(key, name, {{"b", "2"}}));
    return store_->commit(snapshot.id, shape, {.size = 5, .inodes = 6}, {{"c", "3"}});
  }

  // A committed snapshot.
  void layer(const std::string& name, const std::string& parent, Shape shape = Shape::folder) {
    ASSERT_TRUE(add("making " + name, parent, Kind::active, shape));
    ASSERT_TRUE(commit("making " + name, name, shape));
  }

  template <typename T>
  static int code_of(const Result<T>& result) {
    return result ? 0 : result.error().code;
  }

  std::vector<std::string> keys() {
    std::vector<std::string> keys;
    const auto all = store_->list("", 1000);
    for (const Snapshot& snapshot : *all) keys.push_back(snapshot.key);
    return keys;
  }

  test::ScratchFolder folder_;
  const std::string path_ = folder_ / "metadata.sqlite";
  std::optional<Store> store_;
};

TEST_F(StoreTest, KeepsASnapshot) {
  const auto made = add("a", "");
  ASSERT_TRUE(made) << made.error().message;
  reopen();
  const auto found = store_->find("a");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->id, made->id);
  EXPECT_EQ(found->kind, Kind::active);
  EXPECT_EQ(found->created, made->created);
  EXPECT_GT(found->created, 0);
  EXPECT_THAT(found->labels, ElementsAre(Pair("a", "1")));
  EXPECT_EQ(code_of(store_->find("b")), ENOENT);
}

TEST_F(StoreTest, HidesWhatIsNotFinishedButKeepsItsKey) {
  layer("base", "");
  const auto begun = store_->begin({.key = "a", .parent = "base", .labels = {}});
  ASSERT_TRUE(begun);
  EXPECT_EQ(code_of(store_->find("a")), ENOENT);
  EXPECT_THAT(keys(), ElementsAre("base"));
  EXPECT_EQ(code_of(store_->begin({.key = "a", .labels = {}})), EEXIST);
  EXPECT_EQ(code_of(store_->remove("base")), EBUSY);
  reopen();
  ASSERT_EQ(store_->unfinished()->size(), 1u);
  EXPECT_TRUE(store_->abandon(begun->id));
  EXPECT_THAT(*store_->unfinished(), IsEmpty());
  EXPECT_TRUE(store_->remove("base"));
}

TEST_F(StoreTest, TellsParentsAsContainerdDoes) {
  EXPECT_EQ(code_of(add("a", "nobody")), ENOENT);
  ASSERT_TRUE(add("active", ""));
  EXPECT_EQ(code_of(add("a", "active")), EINVAL);
  EXPECT_EQ(code_of(add("active", "")), EEXIST);
  EXPECT_EQ(code_of(add("a", "a")), ENOENT);  // no snapshot is its own parent
}

TEST_F(StoreTest, Commits) {
  layer("base", "");
  ASSERT_TRUE(add("a", "base"));
  ASSERT_TRUE(commit("a", "top"));
  EXPECT_EQ(code_of(store_->find("a")), ENOENT);
  const auto top = store_->find("top");
  ASSERT_TRUE(top);
  EXPECT_EQ(top->kind, Kind::committed);
  EXPECT_EQ(top->parent, "base");
  EXPECT_EQ(top->usage.size, 5u);
  EXPECT_EQ(top->usage.inodes, 6u);
  // Those of the active one are gone.
  EXPECT_THAT(top->labels, ElementsAre(Pair("b", "2"), Pair("c", "3")));
}

TEST_F(StoreTest, RefusesCommitsAsContainerdDoes) {
  layer("base", "");
  ASSERT_TRUE(add("a", ""));
  ASSERT_TRUE(add("v", "base", Kind::view));
  EXPECT_EQ(code_of(commit("a", "base")), EEXIST);
  EXPECT_EQ(code_of(commit("a", "a")), EEXIST);
  EXPECT_EQ(code_of(commit("nobody", "x")), ENOENT);
  EXPECT_EQ(code_of(commit("v", "x")), EBUSY);
  EXPECT_EQ(code_of(commit("base", "x")), EBUSY);
}

TEST_F(StoreTest, RemembersACommitThatWasCutShort) {
  ASSERT_TRUE(add("a", ""));
  ASSERT_TRUE(store_->commit_begins("a", "top", {{"b", "2"}}));
  reopen();
  const auto pending = store_->pending_commits();
  ASSERT_EQ(pending->size(), 1u);
  EXPECT_EQ(pending->front().name, "top");
  EXPECT_EQ(pending->front().snapshot.key, "a");
  EXPECT_THAT(pending->front().labels, ElementsAre(Pair("b", "2")));
  // Until it is done, all is as before, but the name is taken.
  EXPECT_EQ(store_->find("a")->kind, Kind::active);
  EXPECT_THAT(store_->find("a")->labels, ElementsAre(Pair("a", "1")));
  ASSERT_TRUE(add("other", ""));
  EXPECT_EQ(code_of(store_->commit_begins("other", "top", {})), EEXIST);
  ASSERT_TRUE(store_->commit_failed(pending->front().snapshot.id));
  EXPECT_THAT(*store_->pending_commits(), IsEmpty());
  EXPECT_TRUE(commit("other", "top"));
}

TEST_F(StoreTest, RemovesChildrenFirst) {
  layer("base", "");
  layer("top", "base");
  EXPECT_EQ(code_of(store_->remove("base")), EBUSY);
  EXPECT_TRUE(store_->remove("top"));
  EXPECT_TRUE(store_->remove("base"));
  EXPECT_EQ(code_of(store_->remove("base")), ENOENT);
}

TEST_F(StoreTest, NeverGivesANumberTwice) {
  const auto first = add("a", "");
  ASSERT_TRUE(store_->remove("a"));
  reopen();
  EXPECT_GT(add("a", "")->id, first->id);
}

TEST_F(StoreTest, ListsAncestorsTheNearestFirst) {
  layer("one", "");
  layer("two", "one");
  layer("three", "two");
  const auto chain = store_->ancestors(*add("a", "three"));
  ASSERT_EQ(chain->size(), 3u);
  EXPECT_EQ(chain->front().key, "three");
  EXPECT_EQ(chain->back().key, "one");
}

TEST_F(StoreTest, KnowsWhoUsesADisk) {
  layer("disk", "", Shape::dir);
  const int64_t id = store_->find("disk")->id;
  EXPECT_FALSE(*store_->has_users(id));
  // Goes on from the disk on one of its own.
  ASSERT_TRUE(add("own", "disk", Kind::active, Shape::dir));
  EXPECT_FALSE(*store_->has_users(id));
  layer("folder", "disk");
  EXPECT_FALSE(*store_->has_users(id));
  ASSERT_TRUE(add("container", "folder"));
  EXPECT_TRUE(*store_->has_users(id));
  ASSERT_TRUE(store_->remove("container"));
  EXPECT_FALSE(*store_->has_users(id));
  ASSERT_TRUE(add("view", "disk", Kind::view, Shape::dev));
  EXPECT_TRUE(*store_->has_users(id));
  // Above another disk, nobody uses this one.
  ASSERT_TRUE(store_->remove("view"));
  layer("disk2", "disk", Shape::dir);
  ASSERT_TRUE(add("container2", "disk2"));
  EXPECT_FALSE(*store_->has_users(id));
}

TEST_F(StoreTest, UpdatesLabels) {
  ASSERT_TRUE(add("a", ""));
  const auto before = store_->find("a")->updated;
  auto updated = store_->update_labels("a", {{"x", "1"}, {"y", "2"}, {"z", ""}}, std::nullopt);
  ASSERT_TRUE(updated);
  EXPECT_THAT(updated->labels, ElementsAre(Pair("x", "1"), Pair("y", "2")));
  EXPECT_GE(updated->updated, before);
  updated =
      store_->update_labels("a", {{"x", "3"}, {"q", "4"}}, std::vector<std::string>{"x", "y"});
  EXPECT_THAT(updated->labels, ElementsAre(Pair("x", "3")));
  EXPECT_EQ(code_of(store_->update_labels("b", {}, std::nullopt)), ENOENT);
}

TEST_F(StoreTest, ListsInPages) {
  for (const char* key : {"b", "a", "d", "c"}) ASSERT_TRUE(add(key, ""));
  EXPECT_THAT(keys(), ElementsAre("a", "b", "c", "d"));
  const auto page = store_->list("a", 2);
  ASSERT_EQ(page->size(), 2u);
  EXPECT_EQ(page->front().key, "b");
}

TEST_F(StoreTest, TakesAnyKey) {
  for (const std::string& key :
       {std::string("../../etc"), std::string("a/b'\";--"), std::string("\xC3\xA4\n"),
        std::string(30000, 'k'), std::string("a\0b", 3)}) {
    ASSERT_TRUE(add(key, ""));
    EXPECT_EQ(store_->find(key)->key, key);
  }
}

TEST_F(StoreTest, CountsKinds) {
  layer("base", "");
  ASSERT_TRUE(add("a", "base"));
  EXPECT_THAT(*store_->count(),
              ElementsAre(Pair(Kind::view, 0u), Pair(Kind::active, 1u), Pair(Kind::committed, 1u)));
}

TEST_F(StoreTest, RefusesOtherDatabases) {
  const std::string other = folder_ / "other.sqlite";
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(other.c_str(), &database), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(database, "PRAGMA application_id = 7", nullptr, nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(database);
  EXPECT_EQ(code_of(Store::open(other)), EINVAL);

  store_.reset();
  ASSERT_EQ(sqlite3_open(path_.c_str(), &database), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(database, "PRAGMA user_version = 2", nullptr, nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(database);
  EXPECT_EQ(code_of(Store::open(path_)), EINVAL);
}

TEST_F(StoreTest, WaitsForOtherProgramsThatUseTheDatabase) {
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &other), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(other, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);
  std::thread adding([this] { EXPECT_TRUE(add("a", "")); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(sqlite3_exec(other, "ROLLBACK", nullptr, nullptr, nullptr), SQLITE_OK);
  adding.join();
  sqlite3_close(other);
  EXPECT_THAT(keys(), ElementsAre("a"));
}

TEST_F(StoreTest, KeepsTheNameOfACommitThatHasBegun) {
  ASSERT_TRUE(add("a", ""));
  ASSERT_TRUE(store_->commit_begins("a", "base", {}));
  EXPECT_EQ(code_of(add("base", "")), EEXIST);
}

TEST_F(StoreTest, KnowsTheLastNumberThatItGave) {
  EXPECT_EQ(*store_->last_id(), 0);
  ASSERT_TRUE(add("a", "") && add("b", ""));
  ASSERT_TRUE(store_->remove("b"));
  reopen();
  EXPECT_EQ(*store_->last_id(), 2);
}

TEST_F(StoreTest, ServesManyThreads) {
  layer("base", "");
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this, i] {
      for (int j = 0; j < 20; ++j) {
        const std::string key = fmt::format("{}-{}", i, j);
        EXPECT_TRUE(add(key, "base"));
        if (j % 2 == 0) {
          EXPECT_TRUE(store_->remove(key));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(keys().size(), 41u);
}

}  // namespace
}  // namespace obd::snapshotter
