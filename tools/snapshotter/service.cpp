#include "tools/snapshotter/service.h"

#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>
#include <utility>

#include "core/io/descriptor.h"
#include "github.com/containerd/containerd/api/services/snapshots/v1/snapshots.grpc.pb.h"
#include "tools/snapshotter/log.h"

namespace obd::snapshotter {
namespace {

namespace wire = containerd::services::snapshots::v1;
using google::protobuf::Empty;
using grpc::ServerContext;
using grpc::StatusCode;

// A sentence travels in a header, of which clients accept some kilobytes.
constexpr size_t kMaxSentence = 1500;
// Clients refuse messages of more than some megabytes, and an image's manifest may have as many
// labels as it likes.
constexpr size_t kMaxListed = size_t{1} << 20;
constexpr int64_t kNanoseconds = 1'000'000'000;

StatusCode code_of(const Error& error) {
  switch (error.code) {
    case ENOENT:
      return StatusCode::NOT_FOUND;
    case EEXIST:
      return StatusCode::ALREADY_EXISTS;
    case EINVAL:
      return StatusCode::INVALID_ARGUMENT;
    case EBUSY:
      return StatusCode::FAILED_PRECONDITION;
    case ENOSPC:
      return StatusCode::RESOURCE_EXHAUSTED;
    case EOPNOTSUPP:
      return StatusCode::UNIMPLEMENTED;
    default:
      return StatusCode::UNKNOWN;
  }
}

std::string_view name_of(StatusCode code) {
  switch (code) {
    case StatusCode::OK:
      return "OK";
    case StatusCode::NOT_FOUND:
      return "NotFound";
    case StatusCode::ALREADY_EXISTS:
      return "AlreadyExists";
    case StatusCode::INVALID_ARGUMENT:
      return "InvalidArgument";
    case StatusCode::FAILED_PRECONDITION:
      return "FailedPrecondition";
    case StatusCode::RESOURCE_EXHAUSTED:
      return "ResourceExhausted";
    case StatusCode::UNIMPLEMENTED:
      return "Unimplemented";
    default:
      return "Unknown";
  }
}

std::string sentence(const std::string& message) {
  if (message.size() <= kMaxSentence) return message;
  size_t end = kMaxSentence;
  while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xC0) == 0x80) --end;
  return message.substr(0, end) + "...";
}

void put_time(int64_t time, google::protobuf::Timestamp& into) {
  into.set_seconds(time / kNanoseconds);
  into.set_nanos(static_cast<int32_t>(time % kNanoseconds));
}

void put_info(const Snapshot& snapshot, wire::Info& info) {
  info.set_name(snapshot.key);
  info.set_parent(snapshot.parent);
  info.set_kind(static_cast<wire::Kind>(snapshot.kind));
  put_time(snapshot.created, *info.mutable_created_at());
  put_time(snapshot.updated, *info.mutable_updated_at());
  info.mutable_labels()->insert(snapshot.labels.begin(), snapshot.labels.end());
}

template <typename Response>
void put_mounts(Mounts mounts, Response& response) {
  for (Mount& mount : mounts) {
    auto& one = *response.add_mounts();
    one.set_type(std::move(mount.type));
    one.set_source(std::move(mount.source));
    one.mutable_options()->Add(mount.options.begin(), mount.options.end());
  }
}

template <typename Map>
Labels labels_of(const Map& map) {
  return {map.begin(), map.end()};
}

class Calls final : public wire::Snapshots::Service {
 public:
  Calls(Snapshotter& snapshotter, CallMetrics& metrics)
      : snapshotter_(snapshotter), metrics_(metrics) {}

  grpc::Status Prepare(ServerContext*, const wire::PrepareSnapshotRequest* request,
                       wire::PrepareSnapshotResponse* response) override {
    return call("Prepare", request->key(), [&]() -> Result<void> {
      OBD_TRY_ASSIGN(auto mounts, snapshotter_.prepare(request->key(), request->parent(),
                                                       labels_of(request->labels())));
      put_mounts(std::move(mounts), *response);
      return {};
    });
  }

  grpc::Status View(ServerContext*, const wire::ViewSnapshotRequest* request,
                    wire::ViewSnapshotResponse* response) override {
    return call("View", request->key(), [&]() -> Result<void> {
      OBD_TRY_ASSIGN(auto mounts, snapshotter_.view(request->key(), request->parent(),
                                                    labels_of(request->labels())));
      put_mounts(std::move(mounts), *response);
      return {};
    });
  }

  grpc::Status Mounts(ServerContext*, const wire::MountsRequest* request,
                      wire::MountsResponse* response) override {
    return call("Mounts", request->key(), [&]() -> Result<void> {
      OBD_TRY_ASSIGN(auto mounts, snapshotter_.mounts(request->key()));
      put_mounts(std::move(mounts), *response);
      return {};
    });
  }

  grpc::Status Commit(ServerContext*, const wire::CommitSnapshotRequest* request, Empty*) override {
    return call("Commit", request->key(), [&] {
      return snapshotter_.commit(request->name(), request->key(), labels_of(request->labels()));
    });
  }

  grpc::Status Remove(ServerContext*, const wire::RemoveSnapshotRequest* request, Empty*) override {
    return call("Remove", request->key(), [&] { return snapshotter_.remove(request->key()); });
  }

  grpc::Status Stat(ServerContext*, const wire::StatSnapshotRequest* request,
                    wire::StatSnapshotResponse* response) override {
    return call("Stat", request->key(), [&]() -> Result<void> {
      OBD_TRY_ASSIGN(const Snapshot snapshot, snapshotter_.stat(request->key()));
      put_info(snapshot, *response->mutable_info());
      return {};
    });
  }

  grpc::Status Update(ServerContext*, const wire::UpdateSnapshotRequest* request,
                      wire::UpdateSnapshotResponse* response) override {
    return call("Update", request->info().name(), [&]() -> Result<void> {
      const auto& paths = request->update_mask().paths();
      OBD_TRY_ASSIGN(
          const Snapshot snapshot,
          snapshotter_.update(request->info().name(), labels_of(request->info().labels()),
                              {paths.begin(), paths.end()}));
      put_info(snapshot, *response->mutable_info());
      return {};
    });
  }

  grpc::Status List(ServerContext*, const wire::ListSnapshotsRequest* request,
                    grpc::ServerWriter<wire::ListSnapshotsResponse>* writer) override {
    return call("List", "", [&] {
      const auto& filters = request->filters();
      return snapshotter_.list({filters.begin(), filters.end()},
                               [&](const std::vector<Snapshot>& snapshots) {
                                 wire::ListSnapshotsResponse response;
                                 for (const Snapshot& snapshot : snapshots) {
                                   wire::Info info;
                                   put_info(snapshot, info);
                                   if (response.info_size() > 0 &&
                                       response.ByteSizeLong() + info.ByteSizeLong() > kMaxListed) {
                                     if (!writer->Write(response)) return false;
                                     response.Clear();
                                   }
                                   *response.add_info() = std::move(info);
                                 }
                                 return writer->Write(response);
                               });
    });
  }

  grpc::Status Usage(ServerContext*, const wire::UsageRequest* request,
                     wire::UsageResponse* response) override {
    return call("Usage", request->key(), [&]() -> Result<void> {
      OBD_TRY_ASSIGN(const auto usage, snapshotter_.usage(request->key()));
      response->set_size(static_cast<int64_t>(usage.size));
      response->set_inodes(static_cast<int64_t>(usage.inodes));
      return {};
    });
  }

  grpc::Status Cleanup(ServerContext*, const wire::CleanupRequest*, Empty*) override {
    return call("Cleanup", "", [&] { return snapshotter_.cleanup(); });
  }

 private:
  // Nothing that is thrown leaves a call.
  template <typename Action>
  static Result<void> guarded(Action&& action) {
    try {
      return action();
    } catch (const std::bad_alloc&) {
      return fail(ENOMEM, "out of memory");
    } catch (const std::exception& error) {
      return fail(EIO, "internal error: {}", error.what());
    }
  }

  template <typename Action>
  grpc::Status call(std::string_view name, const std::string& key, Action&& action) {
    const auto start = std::chrono::steady_clock::now();
    const Result<void> result = guarded(std::forward<Action>(action));
    const auto duration = std::chrono::steady_clock::now() - start;
    const StatusCode code = result ? StatusCode::OK : code_of(result.error());
    metrics_.count(name, name_of(code), duration);
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
    if (result) {
      log_debug("{} {} took {} ms", name, shown(key), took);
      return grpc::Status::OK;
    }
    // What is not there, or there already, clients ask for all the time.
    const bool is_usual = code == StatusCode::NOT_FOUND || code == StatusCode::ALREADY_EXISTS;
    log_line(is_usual ? LogLevel::debug : LogLevel::warning,
             fmt::format("{} {} failed after {} ms: {}", name, shown(key), took,
                         result.error().message));
    return {code, sentence(result.error().message)};
  }

  Snapshotter& snapshotter_;
  CallMetrics& metrics_;
};

bool somebody_answers(const std::string& path) {
  const Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return false;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

Result<void> make_way_for_socket(const std::string& path) {
  const auto folder = std::filesystem::path(path).parent_path();
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (code) return fail_errno(code.value(), "{}: cannot be made", folder.string());
  struct stat info{};
  if (::lstat(path.c_str(), &info) != 0) return {};
  if (!S_ISSOCK(info.st_mode)) {
    return fail(EEXIST, "{}: is there and is no socket: remove it, or choose another address",
                path);
  }
  if (somebody_answers(path)) {
    return fail(EADDRINUSE, "{}: another process listens there: stop it, or choose another address",
                path);
  }
  if (::unlink(path.c_str()) != 0) return fail_errno(errno, "{}: cannot be removed", path);
  return {};
}

}  // namespace

struct Service::Server {
  Server(Snapshotter& snapshotter, CallMetrics& metrics) : calls(snapshotter, metrics) {}
  Calls calls;
  std::unique_ptr<grpc::Server> grpc;
};

Service::Service(std::unique_ptr<Server> server) : server_(std::move(server)) {}
Service::~Service() = default;

Result<std::unique_ptr<Service>> Service::start(const std::string& address,
                                                Snapshotter& snapshotter, CallMetrics& metrics) {
  OBD_TRY(make_way_for_socket(address));
  auto server = std::make_unique<Server>(snapshotter, metrics);
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + address, grpc::InsecureServerCredentials());
  builder.RegisterService(&server->calls);
  server->grpc = builder.BuildAndStart();
  if (!server->grpc) return fail(EIO, "{}: cannot be listened on", address);
  // Whoever can connect can mount.
  if (::chmod(address.c_str(), 0600) != 0) return fail_errno(errno, "{}: chmod", address);
  return std::unique_ptr<Service>(new Service(std::move(server)));
}

void Service::stop(std::chrono::milliseconds patience) {
  server_->grpc->Shutdown(std::chrono::system_clock::now() + patience);
}

}  // namespace obd::snapshotter
