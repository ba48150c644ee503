// overlaybd-snapshotter: reads its config, takes hold of its root, and serves until a signal comes.
//
// It ends as if it were killed, only a little later: calls that take longer than a moment are
// finished or undone at the next start. Disks and their servers stay.

#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <memory>

#include "tools/obd/command.h"
#include "tools/obd/command_line.h"
#include "tools/snapshotter/config.h"
#include "tools/snapshotter/log.h"
#include "tools/snapshotter/metrics.h"
#include "tools/snapshotter/service.h"
#include "tools/snapshotter/snapshotter.h"

namespace obd::snapshotter {
namespace {

using namespace std::chrono_literals;

constexpr auto kForRunningCalls = 700ms;

constexpr const char* kFooter = R"(Examples:
  overlaybd-snapshotter                        with /etc/overlaybd-snapshotter/config.json
  overlaybd-snapshotter --config my.json --check-config

In containerd's config.toml:
  [proxy_plugins.overlaybd]
    type = "snapshot"
    address = "/run/overlaybd-snapshotter/overlaybd.sock"

Then:
  ctr images pull --snapshotter overlaybd docker.io/library/busybox:latest
  ctr run --snapshotter overlaybd docker.io/library/busybox:latest NAME)";

sigset_t ending_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT}) ::sigaddset(&set, number);
  return set;
}

std::string metrics_text(const CallMetrics& calls, const Snapshotter& snapshotter) {
  std::string text = calls.text();
  text += metric("overlaybd_snapshotter_build_info", "gauge", "Which version this is.",
                 "{version=\"" OBD_VERSION "\"}", 1);
  text += metric("overlaybd_snapshotter_attached_images", "gauge",
                 "Images that are attached as block devices.", "", snapshotter.attached());
  if (const auto counts = snapshotter.count()) {
    text +=
        "# HELP overlaybd_snapshotter_snapshots Snapshots, by their kind.\n"
        "# TYPE overlaybd_snapshotter_snapshots gauge\n";
    for (const auto& [kind, number] : *counts) {
      text +=
          fmt::format("overlaybd_snapshotter_snapshots{{kind=\"{}\"}} {}\n", to_text(kind), number);
    }
  }
  return text;
}

Result<void> serve(const Config& config) {
  if (::geteuid() != 0) return fail(EPERM, "only root can mount images: try sudo");
  ::umask(077);
  ::signal(SIGPIPE, SIG_IGN);
  // Before there are threads, which inherit it.
  const sigset_t signals = ending_signals();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  OBD_TRY_ASSIGN(const auto snapshotter, Snapshotter::open(config));
  CallMetrics calls;
  std::unique_ptr<MetricsServer> exporter;
  if (config.exporter.enable) {
    OBD_TRY_ASSIGN(exporter, MetricsServer::start(config.exporter, [&calls, &snapshotter] {
                     return metrics_text(calls, *snapshotter);
                   }));
  }
  OBD_TRY_ASSIGN(const auto service, Service::start(config.address, *snapshotter, calls));
  log_info("overlaybd-snapshotter " OBD_VERSION " serves {} on {}, rwMode {}", config.root,
           config.address, to_text(config.mode));

  int number = 0;
  ::sigwait(&signals, &number);
  log_info("ends at signal {}", number);
  service->stop(kForRunningCalls);
  // Calls that still run have no chance to see the objects here go.
  ::_exit(0);
}

int run(int argc, char** argv) {
  CLI::App app("Containerd's snapshotter for layered disk images.", "overlaybd-snapshotter");
  app.set_version_flag("--version", "overlaybd-snapshotter " OBD_VERSION);
  app.footer(kFooter);
  std::string path = kDefaultConfigPath;
  bool check_only = false;
  app.add_option("-c,--config", path, "The config file")->type_name("FILE")->capture_default_str();
  app.add_flag("--check-config", check_only, "Only tell whether the config file is right");
  if (const auto status = tool::parse_command_line(app, argc, argv)) return *status;

  const auto config = load_config_file(path);
  if (!config) {
    log_error("{}", config.error().message);
    return tool::kExitFailure;
  }
  for (const std::string& sentence : config->warnings) log_warning("{}", sentence);
  if (check_only) {
    std::puts("the config is right");
    return tool::kExitSuccess;
  }
  set_log_level(config->verbose);
  const Result<void> served = serve(*config);
  log_error("{}", served.error().message);
  return tool::kExitFailure;
}

}  // namespace
}  // namespace obd::snapshotter

int main(int argc, char** argv) {
  try {
    return obd::snapshotter::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "overlaybd-snapshotter: internal error: %s\n", error.what());
  }
  return obd::tool::kExitFailure;
}
