// Figures for Prometheus, and the small web server that tells them.
//
// Thread-safety: all functions may be called from any thread. Errors: EADDRINUSE and the like, with
// the port.

#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "tools/snapshotter/config.h"

namespace obd::snapshotter {

// How often each call was made, how it ended, and how long it took.
class CallMetrics {
 public:
  void count(std::string_view call, std::string_view code, std::chrono::nanoseconds duration);
  // In Prometheus' text format.
  [[nodiscard]] std::string text() const;

 private:
  // Upper bounds of the histogram, in seconds.
  static constexpr std::array kBounds = {0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0};
  struct Durations {
    std::array<uint64_t, kBounds.size() + 1> counts{};
    uint64_t total = 0;
    double seconds = 0;
  };

  mutable std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, uint64_t> ends_;
  std::map<std::string, Durations> durations_;
};

// A sample with the two lines that explain it.
std::string metric(std::string_view name, std::string_view type, std::string_view help,
                   std::string_view labels, uint64_t value);

// Answers GET of the exporter's path with what `text` returns.
class MetricsServer {
 public:
  static Result<std::unique_ptr<MetricsServer>> start(const Exporter& exporter,
                                                      std::function<std::string()> text);
  ~MetricsServer();

 private:
  struct Server;
  explicit MetricsServer(std::unique_ptr<Server> server);
  std::unique_ptr<Server> server_;
};

}  // namespace obd::snapshotter
