// Writes to a disk until the power is cut, and judges afterwards what the disk holds.
//
//   power_cut_writer run URI SEED              requests without end, numbered from 1, and flushes;
//   a
//                                              line "FLUSHED N": a flush has completed that was
//                                              sent after requests 1 to N had completed
//   power_cut_writer verify URI STATE SEED N   after the restart, N from the last such line: every
//                                              cell must hold what is allowed, and STATE, what it
//                                              held before the run, becomes what it holds now
//
// SEED is another for every run on one disk. The requests follow from it, so that nothing but N has
// to outlive the power cut. They are sent one by one, so the disk's content has a history; flushes
// run beside them. A cell holds what it held after request N, or what one of the later requests
// that can have been sent put there.

#include <fmt/format.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "test/e2e/disk_cells.h"
#include "test/e2e/disk_state.h"
#include "test/e2e/nbd_client.h"

namespace obd::test {
namespace {

constexpr uint64_t kBatch = 24;                // requests between two flushes
constexpr uint64_t kAhead = 2 * kBatch;        // requests sent beyond what was reported, at most
constexpr uint64_t kHotPart = 1U << 20;        // bytes that half of all requests fall into
constexpr uint64_t kLongestWrite = 64U << 10;  // bytes
constexpr uint64_t kLongestZero = 512U << 10;  // bytes
constexpr uint64_t kSeedLimit = uint64_t{1} << 30;

enum class Kind { write, zero, trim };

struct NumberedRequest {
  Kind kind;
  Stamp stamp;      // what the cells hold afterwards
  uint64_t offset;  // in bytes, as the length
  uint64_t length;
};

NumberedRequest numbered_request(uint64_t seed, uint64_t n, uint64_t disk_size) {
  const Stamp id = (seed << 32) + n;
  uint64_t random = id;
  const auto below = [&](uint64_t limit) { return (random = mix(random + n)) % limit; };
  NumberedRequest request = {};
  const uint64_t dice = below(10);
  request.kind = dice < 7 ? Kind::write : dice < 9 ? Kind::zero : Kind::trim;
  request.stamp = request.kind == Kind::write ? id : kZeroStamp;
  const uint64_t unit = below(2) == 0 ? 4096 : kCellSize;
  const uint64_t longest = request.kind == Kind::write ? kLongestWrite : kLongestZero;
  request.length = unit * (below(4) != 0 ? 1 + below(8) : 1 + below(longest / unit));
  const uint64_t part = below(2) == 0 ? kHotPart : disk_size;
  request.offset = below((part - request.length) / unit + 1) * unit;
  return request;
}

class InFlight : public Request {
 public:
  void completed(int error) override {
    if (error != 0) die("a request failed: {}", std::strerror(error));
    busy = false;
  }

  bool busy = false;
};

void run(const std::string& uri, uint64_t seed) {
  std::array<NbdConnection, 1> connections = {NbdConnection(uri)};
  NbdConnection& connection = connections[0];
  std::vector<std::byte> buffer(kLongestWrite);
  InFlight write;
  InFlight flush;
  uint64_t sent = 0;
  uint64_t flushing = 0;  // the requests that the flush in flight, or the last one, is about
  uint64_t reported = 0;
  do {
    if (!flush.busy && flushing > reported) {
      reported = flushing;
      fmt::print("FLUSHED {}\n", reported);
      std::fflush(stdout);
      // Nothing more is sent before a console has the line; it need not be one.
      (void)tcdrain(STDOUT_FILENO);
    }
    const uint64_t done = write.busy ? sent - 1 : sent;
    if (!flush.busy && done >= reported + kBatch) {
      flushing = done;
      flush.busy = true;
      if (!connection.flush(flush)) die("the server went away");
    }
    if (!write.busy && sent < reported + kAhead) {
      const NumberedRequest request = numbered_request(seed, ++sent, connection.size());
      write.busy = true;
      const auto send = [&] {
        switch (request.kind) {
          case Kind::write: {
            const auto data = std::span(buffer).first(request.length);
            fill_cells(data, request.stamp, request.offset / kCellSize);
            return connection.write(data, request.offset, /*flags=*/0, write);
          }
          case Kind::zero:
            return connection.zero(request.offset, request.length, /*flags=*/0, write);
          case Kind::trim:
            return connection.trim(request.offset, request.length, /*flags=*/0, write);
        }
        return false;
      };
      if (!send()) die("the server went away");
    }
  } while (poll_connections(connections));
  die("the server went away");
}

void verify(const std::string& uri, const std::string& state_path, uint64_t seed,
            uint64_t flushed) {
  const DiskState before = load_state(state_path);
  AllowedStamps allowed(before.size());
  for (size_t cell = 0; cell < before.size(); ++cell) allowed[cell] = {before[cell]};
  for (uint64_t n = 1; n <= flushed + kAhead; ++n) {
    const NumberedRequest request = numbered_request(seed, n, before.size() * kCellSize);
    const uint64_t end = (request.offset + request.length) / kCellSize;
    for (uint64_t cell = request.offset / kCellSize; cell < end; ++cell) {
      if (n <= flushed) allowed[cell].clear();
      allowed[cell].push_back(request.stamp);
    }
  }
  NbdConnection connection(uri);
  save_state(state_path, check_disk(connection, allowed));
}

uint64_t seed_of(const std::string& text) {
  const uint64_t seed = number(text);
  if (seed == 0 || seed >= kSeedLimit) die("the seed must be from 1 to {}", kSeedLimit - 1);
  return seed;
}

}  // namespace
}  // namespace obd::test

int main(int argc, char** argv) {
  using namespace obd::test;
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::string command = arguments.empty() ? "" : arguments[0];
  if (command == "run" && arguments.size() == 3)
    run(arguments[1], seed_of(arguments[2]));
  else if (command == "verify" && arguments.size() == 5)
    verify(arguments[1], arguments[2], seed_of(arguments[3]), number(arguments[4]));
  else
    die("usage: power_cut_writer run URI SEED | verify URI STATE SEED N");
}
