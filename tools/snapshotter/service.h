// The snapshotter on a Unix socket, as containerd calls proxy plugins: gRPC, service
// containerd.services.snapshots.v1.Snapshots.
//
// Thread-safety: none; calls from clients are carried out by threads of gRPC's. Errors: EADDRINUSE
// when somebody answers on the socket already.

#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "core/base/result.h"
#include "tools/snapshotter/metrics.h"
#include "tools/snapshotter/snapshotter.h"

namespace obd::snapshotter {

class Service {
 public:
  // Listens; a socket that a dead snapshotter has left is replaced. The two others outlive it.
  static Result<std::unique_ptr<Service>> start(const std::string& address,
                                                Snapshotter& snapshotter, CallMetrics& metrics);
  ~Service();

  // Takes no more calls, and waits this long for those that are being carried out.
  void stop(std::chrono::milliseconds patience);

 private:
  struct Server;
  explicit Service(std::unique_ptr<Server> server);
  std::unique_ptr<Server> server_;
};

}  // namespace obd::snapshotter
