// The service as a client of gRPC sees it, with snapshots that are folders: these need neither root
// nor devices.

#include "tools/snapshotter/service.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <thread>

#include "core/io/descriptor.h"
#include "github.com/containerd/containerd/api/services/snapshots/v1/snapshots.grpc.pb.h"
#include "test/unit/scratch_folder.h"

namespace obd::snapshotter {
namespace {

namespace wire = containerd::services::snapshots::v1;
using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class ServiceTest : public testing::Test {
 protected:
  ServiceTest() {
    config_.root = std::filesystem::path(folder_ / "root").lexically_normal();
    config_.address = folder_ / "s.sock";
    config_.state_dir = folder_ / "state";
    set_log_level(LogLevel::error);
    start();
  }
  ~ServiceTest() override {
    stop();
    set_log_level(LogLevel::info);
  }

  void start() {
    auto snapshotter = Snapshotter::open(config_);
    ASSERT_TRUE(snapshotter) << snapshotter.error().message;
    snapshotter_ = std::move(*snapshotter);
    auto service = Service::start(config_.address, *snapshotter_, metrics_);
    ASSERT_TRUE(service) << service.error().message;
    service_ = std::move(*service);
    stub_ = wire::Snapshots::NewStub(
        grpc::CreateChannel("unix:" + config_.address, grpc::InsecureChannelCredentials()));
  }
  void stop() {
    stub_.reset();
    if (service_) service_->stop(std::chrono::seconds(10));
    service_.reset();
    snapshotter_.reset();
  }

  template <typename Request, typename Response>
  grpc::Status call(grpc::Status (wire::Snapshots::Stub::*method)(grpc::ClientContext*,
                                                                  const Request&, Response*),
                    const Request& request, Response& response) {
    grpc::ClientContext context;
    return (stub_.get()->*method)(&context, request, &response);
  }

  using LabelMap = std::map<std::string, std::string>;

  grpc::Status prepare(const std::string& key, const std::string& parent,
                       const LabelMap& labels = {}) {
    wire::PrepareSnapshotRequest request;
    request.set_key(key);
    request.set_parent(parent);
    request.mutable_labels()->insert(labels.begin(), labels.end());
    wire::PrepareSnapshotResponse response;
    const auto status = call(&wire::Snapshots::Stub::Prepare, request, response);
    mounts_ = {response.mounts().begin(), response.mounts().end()};
    return status;
  }
  grpc::Status view(const std::string& key, const std::string& parent) {
    wire::ViewSnapshotRequest request;
    request.set_key(key);
    request.set_parent(parent);
    wire::ViewSnapshotResponse response;
    const auto status = call(&wire::Snapshots::Stub::View, request, response);
    mounts_ = {response.mounts().begin(), response.mounts().end()};
    return status;
  }
  grpc::Status mounts(const std::string& key) {
    wire::MountsRequest request;
    request.set_key(key);
    wire::MountsResponse response;
    const auto status = call(&wire::Snapshots::Stub::Mounts, request, response);
    mounts_ = {response.mounts().begin(), response.mounts().end()};
    return status;
  }
  grpc::Status commit(const std::string& key, const std::string& name) {
    wire::CommitSnapshotRequest request;
    request.set_key(key);
    request.set_name(name);
    google::protobuf::Empty response;
    return call(&wire::Snapshots::Stub::Commit, request, response);
  }
  grpc::Status remove(const std::string& key) {
    wire::RemoveSnapshotRequest request;
    request.set_key(key);
    google::protobuf::Empty response;
    return call(&wire::Snapshots::Stub::Remove, request, response);
  }
  grpc::Status cleanup() {
    google::protobuf::Empty response;
    return call(&wire::Snapshots::Stub::Cleanup, wire::CleanupRequest(), response);
  }
  grpc::Status stat(const std::string& key) {
    wire::StatSnapshotRequest request;
    request.set_key(key);
    wire::StatSnapshotResponse response;
    const auto status = call(&wire::Snapshots::Stub::Stat, request, response);
    info_ = response.info();
    return status;
  }
  grpc::Status update(const std::string& key, const LabelMap& labels,
                      const std::vector<std::string>& fields) {
    wire::UpdateSnapshotRequest request;
    request.mutable_info()->set_name(key);
    request.mutable_info()->mutable_labels()->insert(labels.begin(), labels.end());
    for (const std::string& field : fields) request.mutable_update_mask()->add_paths(field);
    wire::UpdateSnapshotResponse response;
    const auto status = call(&wire::Snapshots::Stub::Update, request, response);
    info_ = response.info();
    return status;
  }
  grpc::Status list(const std::vector<std::string>& filters) {
    wire::ListSnapshotsRequest request;
    for (const std::string& filter : filters) request.add_filters(filter);
    grpc::ClientContext context;
    const auto reader = stub_->List(&context, request);
    names_.clear();
    wire::ListSnapshotsResponse response;
    while (reader->Read(&response)) {
      for (const auto& info : response.info()) names_.push_back(info.name());
    }
    return reader->Finish();
  }
  std::string fs_of_only_mount() { return mounts_.empty() ? "" : mounts_.front().source(); }
  static std::string options(const containerd::types::Mount& mount) {
    std::string text;
    for (const std::string& option : mount.options()) text += option + " ";
    return text;
  }

  test::ScratchFolder folder_;
  Config config_;
  CallMetrics metrics_;
  std::unique_ptr<Snapshotter> snapshotter_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<wire::Snapshots::Stub> stub_;
  std::vector<containerd::types::Mount> mounts_;
  wire::Info info_;
  std::vector<std::string> names_;
};

#define EXPECT_OK(expression)                             \
  do {                                                    \
    const grpc::Status status_ = (expression);            \
    EXPECT_TRUE(status_.ok()) << status_.error_message(); \
  } while (false)

TEST_F(ServiceTest, LivesASnapshotsLife) {
  EXPECT_OK(prepare("default/1/a", ""));
  ASSERT_THAT(mounts_, SizeIs(1));
  EXPECT_EQ(mounts_.front().type(), "bind");
  EXPECT_EQ(options(mounts_.front()), "rw rbind ");
  std::ofstream(fs_of_only_mount() + "/file") << "hello";

  EXPECT_OK(commit("default/1/a", "default/2/base"));
  EXPECT_OK(stat("default/2/base"));
  EXPECT_EQ(info_.kind(), wire::COMMITTED);
  EXPECT_GT(info_.created_at().seconds(), 1'000'000'000);

  EXPECT_OK(prepare("default/3/b", "default/2/base", {{"x", "y"}}));
  ASSERT_THAT(mounts_, SizeIs(1));
  EXPECT_EQ(mounts_.front().type(), "overlay");
  EXPECT_THAT(options(mounts_.front()), HasSubstr("upperdir=" + config_.root + "/snapshots/2/fs "));
  EXPECT_THAT(options(mounts_.front()), HasSubstr("lowerdir=" + config_.root + "/snapshots/1/fs "));
  const std::string first = options(mounts_.front());
  EXPECT_OK(mounts("default/3/b"));
  EXPECT_EQ(options(mounts_.front()), first);
  EXPECT_OK(stat("default/3/b"));
  EXPECT_EQ(info_.parent(), "default/2/base");
  EXPECT_EQ(info_.labels().at("x"), "y");

  EXPECT_OK(view("default/4/v", "default/2/base"));
  EXPECT_EQ(mounts_.front().type(), "bind");
  EXPECT_EQ(options(mounts_.front()), "ro rbind ");
  EXPECT_EQ(fs_of_only_mount(), config_.root + "/snapshots/1/fs");

  EXPECT_EQ(remove("default/2/base").error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_OK(remove("default/4/v"));
  EXPECT_OK(remove("default/3/b"));
  EXPECT_OK(remove("default/2/base"));
  EXPECT_OK(list({}));
  EXPECT_THAT(names_, IsEmpty());
  EXPECT_TRUE(std::filesystem::is_empty(config_.root + "/snapshots"));
}

TEST_F(ServiceTest, AnswersWithContainerdsCodes) {
  EXPECT_OK(prepare("active", ""));
  EXPECT_OK(prepare("b", ""));
  EXPECT_OK(commit("b", "base"));
  EXPECT_EQ(prepare("active", "").error_code(), StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(prepare("x", "nobody").error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(prepare("x", "active").error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(prepare("", "").error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(view("x", "nobody").error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(mounts("nobody").error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(mounts("base").error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(commit("nobody", "x").error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(commit("active", "base").error_code(), StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(commit("base", "x").error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(commit("active", "").error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(remove("nobody").error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(stat("nobody").error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(update("nobody", {}, {}).error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(update("base", {}, {"parent"}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(list({"name=="}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_OK(cleanup());
}

TEST_F(ServiceTest, SurvivesHostileClients) {
  const std::string long_key(10'000, 'k');
  for (const std::string& key : {long_key, std::string("../../../etc/passwd"), std::string("/"),
                                 std::string("a'; DROP TABLE snapshots; --")}) {
    EXPECT_OK(prepare(key, ""));
    EXPECT_EQ(prepare(key, "").error_code(), StatusCode::ALREADY_EXISTS);
    EXPECT_OK(stat(key));
    EXPECT_OK(remove(key));
    EXPECT_EQ(stat(key).error_code(), StatusCode::NOT_FOUND);
  }
  EXPECT_EQ(prepare(std::string(100'000, 'k'), "").error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(prepare("x", long_key).error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(prepare("x", "", {{"a", std::string(4096, 'x')}}).error_code(),
            StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(prepare("x", "", {{"", "v"}}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(prepare("x", "", {{"containerd.io/snapshot/overlaybd.writable", "maybe"}}).error_code(),
            StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(list({"name~=" + std::string(5000, '(')}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(list({std::string(10'000, '"')}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_OK(list({}));
  EXPECT_THAT(names_, IsEmpty());
}

TEST_F(ServiceTest, UpdatesByFieldMask) {
  EXPECT_OK(prepare("a", "", {{"x", "1"}, {"y", "2"}}));
  EXPECT_OK(update("a", {{"x", "3"}}, {"labels.x", "labels.y"}));
  EXPECT_EQ(info_.labels().size(), 1u);
  EXPECT_EQ(info_.labels().at("x"), "3");
  EXPECT_OK(update("a", {{"z", "4"}}, {"labels"}));
  EXPECT_EQ(info_.labels().size(), 1u);
  EXPECT_OK(update("a", {{"q", "5"}}, {}));
  EXPECT_EQ(info_.labels().at("q"), "5");
  EXPECT_EQ(info_.kind(), wire::ACTIVE);
}

TEST_F(ServiceTest, ListsWhatFiltersChoose) {
  for (int i = 0; i < 250; ++i) EXPECT_OK(prepare(fmt::format("{:03}", i), ""));
  EXPECT_OK(list({}));
  EXPECT_THAT(names_, SizeIs(250));
  EXPECT_OK(list({"name~=^00[12]$", "name==100"}));
  EXPECT_THAT(names_, ElementsAre("001", "002", "100"));
  EXPECT_OK(list({"kind==committed"}));
  EXPECT_THAT(names_, IsEmpty());
}

TEST_F(ServiceTest, ListsWhatDoesNotFitIntoOneMessage) {
  LabelMap labels;
  for (int i = 0; i < 500; ++i) labels[fmt::format("{:03}", i)] = std::string(4000, 'x');
  for (const char* key : {"a", "b", "c"}) EXPECT_OK(prepare(key, "", labels));
  EXPECT_OK(list({}));
  EXPECT_THAT(names_, ElementsAre("a", "b", "c"));
}

TEST_F(ServiceTest, KeepsAllOverARestart) {
  EXPECT_OK(prepare("a", ""));
  EXPECT_OK(commit("a", "base"));
  EXPECT_OK(prepare("b", "base", {{"l", "m"}}));
  // What died in the middle: a folder that has no row any more.
  EXPECT_OK(prepare("c", ""));
  const std::string left = fs_of_only_mount();
  stop();
  {
    auto store = Store::open(config_.root + "/metadata.sqlite");
    ASSERT_TRUE(store && store->remove("c"));
  }
  ASSERT_TRUE(std::filesystem::exists(left));
  start();
  EXPECT_OK(list({}));
  EXPECT_THAT(names_, ElementsAre("b", "base"));
  EXPECT_OK(stat("b"));
  EXPECT_EQ(info_.labels().at("l"), "m");
  EXPECT_FALSE(std::filesystem::exists(left));
  EXPECT_OK(mounts("b"));
}

TEST_F(ServiceTest, DoesNotStartOverAnothersSnapshots) {
  EXPECT_OK(prepare("a", ""));
  const std::string kept = fs_of_only_mount() + "/file";
  std::ofstream(kept) << "content";
  stop();
  const std::string database = config_.root + "/metadata.sqlite";
  std::filesystem::rename(database, database + ".away");
  for (int i = 0; i < 2; ++i) {
    const auto refused = Snapshotter::open(config_);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("/snapshots/1: the database"));
  }
  EXPECT_TRUE(std::filesystem::exists(kept));
  std::filesystem::rename(database + ".away", database);
  start();
  EXPECT_OK(mounts("a"));
  EXPECT_TRUE(std::filesystem::exists(kept));
}

TEST_F(ServiceTest, UndoesWhatWasInterrupted) {
  EXPECT_OK(prepare("a", ""));
  stop();
  {
    auto store = Store::open(config_.root + "/metadata.sqlite");
    ASSERT_TRUE(store);
    ASSERT_TRUE(store->begin({.key = "half", .parent = "", .labels = {}}));
    ASSERT_TRUE(store->commit_begins("a", "base", {{"x", "y"}}));
  }
  start();
  EXPECT_OK(list({}));
  EXPECT_THAT(names_, ElementsAre("a"));
  EXPECT_OK(stat("a"));
  EXPECT_EQ(info_.kind(), wire::ACTIVE);
  EXPECT_FALSE(info_.labels().contains("x"));
  EXPECT_OK(commit("a", "base"));
  EXPECT_OK(prepare("half", "base"));
}

TEST_F(ServiceTest, LeavesRemovingToCleanupWhenAsked) {
  stop();
  config_.async_remove = true;
  start();
  EXPECT_OK(prepare("a", ""));
  const std::string folder = fs_of_only_mount();
  EXPECT_OK(remove("a"));
  EXPECT_EQ(stat("a").error_code(), StatusCode::NOT_FOUND);
  EXPECT_OK(prepare("a", ""));
  EXPECT_TRUE(std::filesystem::exists(folder));
  EXPECT_OK(cleanup());
  EXPECT_FALSE(std::filesystem::exists(folder));
  EXPECT_OK(stat("a"));
}

TEST_F(ServiceTest, RefusesASecondSnapshotter) {
  const auto second = Snapshotter::open(config_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, EBUSY);
  EXPECT_THAT(second.error().message, HasSubstr(std::to_string(::getpid())));
  // Another root, the same socket.
  const auto service = Service::start(config_.address, *snapshotter_, metrics_);
  ASSERT_FALSE(service);
  EXPECT_EQ(service.error().code, EADDRINUSE);
}

TEST_F(ServiceTest, ReplacesAStaleSocketButNoFile) {
  stop();
  std::filesystem::remove(config_.address);
  {
    const Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    config_.address.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ASSERT_TRUE(std::filesystem::exists(config_.address));
  start();
  EXPECT_OK(list({}));
  stop();
  std::filesystem::remove(config_.address);
  std::ofstream(config_.address) << "precious";
  const auto snapshotter = Snapshotter::open(config_);
  ASSERT_TRUE(snapshotter);
  const auto service = Service::start(config_.address, **snapshotter, metrics_);
  ASSERT_FALSE(service);
  EXPECT_EQ(service.error().code, EEXIST);
}

TEST_F(ServiceTest, CountsUsage) {
  EXPECT_OK(prepare("a", ""));
  std::ofstream(fs_of_only_mount() + "/file") << std::string(100'000, 'x');
  wire::UsageRequest request;
  request.set_key("a");
  wire::UsageResponse response;
  EXPECT_OK(call(&wire::Snapshots::Stub::Usage, request, response));
  EXPECT_GE(response.size(), 100'000);
  EXPECT_OK(commit("a", "base"));
  request.set_key("base");
  EXPECT_OK(call(&wire::Snapshots::Stub::Usage, request, response));
  EXPECT_GE(response.size(), 100'000);
  EXPECT_GE(response.inodes(), 2);
}

TEST_F(ServiceTest, ServesManyAtOnce) {
  EXPECT_OK(prepare("a", ""));
  EXPECT_OK(commit("a", "base"));
  std::vector<std::thread> threads;
  std::atomic<int> made = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 5; ++j) {
        wire::PrepareSnapshotRequest request;
        request.set_key(fmt::format("key-{}", j));
        request.set_parent("base");
        wire::PrepareSnapshotResponse response;
        const auto status = call(&wire::Snapshots::Stub::Prepare, request, response);
        if (status.ok()) {
          ++made;
        } else {
          EXPECT_EQ(status.error_code(), StatusCode::ALREADY_EXISTS) << status.error_message();
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(made, 5);
}

}  // namespace
}  // namespace obd::snapshotter
