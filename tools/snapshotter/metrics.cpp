#include "tools/snapshotter/metrics.h"

#include <httplib.h>

#include <cerrno>
#include <thread>
#include <utility>

namespace obd::snapshotter {

void CallMetrics::count(std::string_view call, std::string_view code,
                        std::chrono::nanoseconds duration) {
  const double seconds = std::chrono::duration<double>(duration).count();
  const std::lock_guard guard(mutex_);
  ++ends_[{std::string(call), std::string(code)}];
  Durations& durations = durations_[std::string(call)];
  size_t bucket = 0;
  while (bucket < kBounds.size() && seconds > kBounds[bucket]) ++bucket;
  ++durations.counts[bucket];
  ++durations.total;
  durations.seconds += seconds;
}

std::string CallMetrics::text() const {
  const std::lock_guard guard(mutex_);
  std::string text =
      "# HELP overlaybd_snapshotter_requests_total Calls of the snapshot service, by their end.\n"
      "# TYPE overlaybd_snapshotter_requests_total counter\n";
  for (const auto& [end, number] : ends_) {
    text += fmt::format("overlaybd_snapshotter_requests_total{{method=\"{}\",code=\"{}\"}} {}\n",
                        end.first, end.second, number);
  }
  text +=
      "# HELP overlaybd_snapshotter_request_duration_seconds How long calls took.\n"
      "# TYPE overlaybd_snapshotter_request_duration_seconds histogram\n";
  for (const auto& [call, durations] : durations_) {
    uint64_t below = 0;
    const auto bucket = [&](std::string_view bound) {
      text += fmt::format(
          "overlaybd_snapshotter_request_duration_seconds_bucket{{method=\"{}\",le=\"{}\"}} {}\n",
          call, bound, below);
    };
    for (size_t i = 0; i < kBounds.size(); ++i) {
      below += durations.counts[i];
      bucket(fmt::format("{}", kBounds[i]));
    }
    below += durations.counts.back();
    bucket("+Inf");
    text += fmt::format(
        "overlaybd_snapshotter_request_duration_seconds_sum{{method=\"{0}\"}} {1}\n"
        "overlaybd_snapshotter_request_duration_seconds_count{{method=\"{0}\"}} {2}\n",
        call, durations.seconds, durations.total);
  }
  return text;
}

std::string metric(std::string_view name, std::string_view type, std::string_view help,
                   std::string_view labels, uint64_t value) {
  return fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n{0}{3} {4}\n", name, help, type, labels,
                     value);
}

struct MetricsServer::Server {
  httplib::Server http;
  std::thread thread;
};

MetricsServer::MetricsServer(std::unique_ptr<Server> server) : server_(std::move(server)) {}

MetricsServer::~MetricsServer() {
  server_->http.stop();
  if (server_->thread.joinable()) server_->thread.join();
}

Result<std::unique_ptr<MetricsServer>> MetricsServer::start(const Exporter& exporter,
                                                            std::function<std::string()> text) {
  auto server = std::make_unique<Server>();
  server->http.new_task_queue = [] { return new httplib::ThreadPool(2); };
  // Before a body is read, which httplib would keep in memory however long it is.
  server->http.set_pre_routing_handler(
      [](const httplib::Request& request, httplib::Response& response) {
        if (request.method == "GET" || request.method == "HEAD") {
          return httplib::Server::HandlerResponse::Unhandled;
        }
        response.status = 405;
        response.set_header("Connection", "close");
        return httplib::Server::HandlerResponse::Handled;
      });
  // A path, where httplib takes a regular expression.
  server->http.Get(".*", [path = exporter.uri_prefix, text = std::move(text)](
                             const httplib::Request& request, httplib::Response& response) {
    if (request.path != path) {
      response.status = 404;
      return;
    }
    response.set_content(text(), "text/plain; version=0.0.4");
  });
  if (!server->http.bind_to_port("0.0.0.0", exporter.port)) {
    return fail(EADDRINUSE, "exporterConfig: port {} cannot be listened on", exporter.port);
  }
  server->thread = std::thread([http = &server->http] { http->listen_after_bind(); });
  // Only one that has begun hears of stop().
  while (!server->http.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(server)));
}

}  // namespace obd::snapshotter
