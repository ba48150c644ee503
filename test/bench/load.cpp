// An asynchronous NBD load generator: keeps a number of requests in flight on one or more
// connections and tells what came of it as one JSON object. `obd_load --help` lists the options.
//
// One thread drives all connections, so that the client stays cheap beside the server. What the
// server's requests cost is the growth of its CPU clock over the measured span only: connecting and
// warming up are left out.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "test/e2e/nbd_client.h"

namespace obd::test {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kExitUsage = 2;
constexpr uint64_t kMostBlock = 32U << 20;  // bytes; what NBD servers take in one request
constexpr uint64_t kMostDepth = 4096;

struct Options {
  std::string uri;
  uint64_t connections = 1;
  uint64_t depth = 16;
  uint64_t block = 4096;                    // bytes
  std::vector<uint64_t> mix = {100, 0, 0};  // per cent of reads, writes, zeroes
  uint64_t fua = 0;                         // per cent of writes and zeroes
  bool sequential = false;
  uint64_t span = 0;  // bytes; 0: the whole disk
  uint64_t flush_every = 0;
  std::optional<double> seconds;  // without: 3, or with `once` as long as that takes
  uint64_t requests = 0;          // 0: as long as `seconds`
  double warm_up = 0.3;
  bool once = false;
  uint64_t seed = 1;
  std::optional<uint64_t> server_pid;
};

// The value is an exit status when there is nothing more to do.
std::optional<int> parse(int argc, char** argv, Options& options) {
  CLI::App app("Loads an NBD server; prints requests and MB per second and latencies as JSON.");
  const CLI::AsSizeValue size(/*kb_is_1000=*/false);
  const CLI::Range per_cent(0, 100);
  app.add_option("uri", options.uri, "Where the server is: nbd+unix:///?socket=PATH")
      ->required()
      ->type_name("URI");
  app.add_option("--connections", options.connections, "Connections (1)")->check(CLI::Range(1, 64));
  app.add_option("--depth", options.depth, "Requests in flight, over all connections (16)")
      ->check(CLI::Range(uint64_t{1}, kMostDepth));
  app.add_option("--block", options.block, "Bytes per request (4K)")
      ->transform(size)
      ->check(CLI::Range(uint64_t{1}, kMostBlock));
  app.add_option("--mix", options.mix, "Per cent of reads, writes and zeroes (100,0,0)")
      ->delimiter(',')
      ->expected(3)
      ->check(per_cent)
      ->type_name("R,W,Z");
  app.add_option("--fua", options.fua, "Per cent of writes and zeroes that are forced to disk (0)")
      ->check(per_cent);
  app.add_flag("--sequential", options.sequential, "Ascending offsets; else random ones");
  app.add_option("--span", options.span, "Use only so much of the disk")->transform(size);
  app.add_option("--flush-every", options.flush_every, "A flush after so many requests (none)");
  app.add_option("--seconds", options.seconds,
                 "How long to measure (3); with --once the most that it may take (no limit)");
  app.add_option("--requests", options.requests, "Measure so many requests instead of a time");
  app.add_option("--warm-up", options.warm_up, "Seconds to run before measuring (0.3)");
  app.add_flag("--once", options.once, "Each block of the span once, without warming up");
  app.add_option("--seed", options.seed, "Of the random offsets (1)");
  app.add_option("--server-pid", options.server_pid,
                 "Also tell the CPU time per request of that process");
  try {
    app.parse(argc, argv);
    if (options.mix[0] + options.mix[1] + options.mix[2] != 100)
      throw CLI::ValidationError("--mix", "must make 100");
    if (options.depth < options.connections)
      throw CLI::ValidationError("--depth", "must be at least --connections");
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? EXIT_SUCCESS : kExitUsage;
  }
  return std::nullopt;
}

// Nanoseconds that a process has run, its threads that have ended included.
uint64_t cpu_nanoseconds(uint64_t pid) {
  clockid_t clock{};
  timespec time{};
  if (clock_getcpuclockid(static_cast<pid_t>(pid), &clock) != 0 ||
      clock_gettime(clock, &time) != 0) {
    die("{}: no such process", pid);
  }
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

// Latencies in buckets that are at most 1/32 of their value wide.
class Latencies {
 public:
  void add(uint64_t nanoseconds) {
    ++counts_[bucket_of(nanoseconds)];
    ++total_;
    longest_ = std::max(longest_, nanoseconds);
  }

  // Microseconds below which that share of the requests stayed.
  [[nodiscard]] double percentile(double share) const {
    const auto rank = static_cast<uint64_t>(share * static_cast<double>(total_));
    uint64_t seen = 0;
    for (size_t bucket = 0; bucket < counts_.size(); ++bucket) {
      seen += counts_[bucket];
      if (seen > rank) return static_cast<double>(upper_end(bucket)) / 1000;
    }
    return longest();
  }
  [[nodiscard]] double longest() const { return static_cast<double>(longest_) / 1000; }

 private:
  static constexpr unsigned kBits = 5;  // of precision

  static size_t bucket_of(uint64_t value) {
    const auto width = static_cast<unsigned>(std::bit_width(value));
    if (width <= kBits + 1) return value;
    const unsigned shift = width - kBits - 1;
    return (size_t{shift} << kBits) + (value >> shift);
  }
  static uint64_t upper_end(size_t bucket) {
    if (bucket < (2U << kBits)) return bucket;
    const size_t shift = (bucket >> kBits) - 1;
    return ((bucket - (shift << kBits) + 1) << shift) - 1;
  }

  std::array<uint64_t, (66 - kBits) << kBits> counts_ = {};
  uint64_t total_ = 0;
  uint64_t longest_ = 0;
};

// What was counted in one span of time.
struct Totals {
  Latencies latencies;
  uint64_t requests = 0;
  uint64_t bytes = 0;
};

class Slot : public Request {
 public:
  explicit Slot(size_t block) : buffer_(block) {}

  void completed(int error) override {
    if (error != 0) die("a request failed: {}", std::strerror(error));
    ended_ = Clock::now();
    busy_ = false;
  }

  void begin() {
    busy_ = true;
    began_ = Clock::now();
  }
  [[nodiscard]] bool busy() const { return busy_; }
  [[nodiscard]] uint64_t nanoseconds() const {
    return static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(ended_ - began_).count());
  }
  std::span<std::byte> buffer() { return buffer_; }

  uint64_t counted_bytes = 0;  // of the request that is running; 0 for a flush or none

 private:
  std::vector<std::byte> buffer_;
  Clock::time_point began_;
  Clock::time_point ended_;
  bool busy_ = false;
};

class Load {
 public:
  explicit Load(const Options& options) : options_(options), random_(options.seed) {
    for (uint64_t i = 0; i < options.connections; ++i) connections_.emplace_back(options.uri);
    const uint64_t size = connections_[0].size();
    const uint64_t span = options.span == 0 ? size : std::min(options.span, size);
    blocks_ = span / options.block;
    if (blocks_ == 0) die("the disk of {} bytes is smaller than a block", size);
    if (options.once && !options.sequential) {
      order_.resize(blocks_);
      std::iota(order_.begin(), order_.end(), uint64_t{0});
      std::shuffle(order_.begin(), order_.end(), random_);
    }
    for (uint64_t i = 0; i < options.depth; ++i) {
      slots_.emplace_back(options.block);
      // Random bytes: neither zeros nor compressible.
      for (std::byte& byte : slots_.back().buffer()) byte = static_cast<std::byte>(random_());
    }
  }

  // Runs until the deadline, the end of the span with --once, or so many requests: whichever comes
  // first. Counts.
  Totals run(std::optional<Clock::time_point> deadline, uint64_t requests = UINT64_MAX) {
    Totals totals;
    left_ = requests;
    bool going = true;
    while (true) {
      bool busy = false;
      for (size_t i = 0; i < slots_.size(); ++i) {
        Slot& slot = slots_[i];
        if (!slot.busy()) {
          account(slot, totals);
          if (going) going = send_next(slot, connections_[i % connections_.size()]);
        }
        busy = busy || slot.busy();
      }
      if (!busy) return totals;
      if (!poll_connections(connections_)) die("the server went away");
      if (deadline && going) going = Clock::now() < *deadline;
    }
  }

 private:
  static void account(Slot& slot, Totals& totals) {
    if (slot.counted_bytes == 0) return;
    totals.latencies.add(slot.nanoseconds());
    ++totals.requests;
    totals.bytes += slot.counted_bytes;
    slot.counted_bytes = 0;
  }

  uint64_t next_block() {
    if (!order_.empty()) return order_[visited_++];
    return options_.sequential ? visited_++ % blocks_ : random_() % blocks_;
  }

  // False when the one pass, or the last request, is over.
  bool send_next(Slot& slot, NbdConnection& connection) {
    if (options_.flush_every != 0 && ++since_flush_ > options_.flush_every) {
      since_flush_ = 0;
      slot.begin();
      if (!connection.flush(slot)) die("the server went away");
      return true;
    }
    if ((options_.once && visited_ == blocks_) || left_ == 0) return false;
    --left_;
    const uint64_t offset = next_block() * options_.block;
    const uint64_t dice = random_() % 100;
    // Not drawn when there is nothing to choose: the offsets stay what they were.
    const bool fua = options_.fua != 0 && random_() % 100 < options_.fua;
    const uint32_t flags = fua ? LIBNBD_CMD_FLAG_FUA : 0;
    slot.counted_bytes = options_.block;
    slot.begin();
    const bool sent = dice < options_.mix[0] ? connection.read(slot.buffer(), offset, slot)
                      : dice < options_.mix[0] + options_.mix[1]
                          ? connection.write(slot.buffer(), offset, flags, slot)
                          : connection.zero(offset, options_.block, flags, slot);
    if (!sent) die("the server went away");
    return true;
  }

  const Options& options_;
  std::mt19937_64 random_;
  std::vector<NbdConnection> connections_;
  std::deque<Slot> slots_;
  uint64_t blocks_ = 0;
  std::vector<uint64_t> order_;  // of all blocks; empty unless each is visited once, at random
  uint64_t visited_ = 0;         // blocks, unless they are drawn at random
  uint64_t since_flush_ = 0;
  uint64_t left_ = 0;  // requests that may still be sent
};

Clock::time_point after(double seconds) {
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

void report(const Options& options, const Totals& totals, double seconds, uint64_t cpu) {
  const auto requests = static_cast<double>(totals.requests);
  fmt::print(R"({{"connections": {}, "depth": {}, "block": {}, "mix": [{}, {}, {}], )",
             options.connections, options.depth, options.block, options.mix[0], options.mix[1],
             options.mix[2]);
  fmt::print(R"("fua": {}, "flush_every": {}, )", options.fua, options.flush_every);
  fmt::print(R"("sequential": {}, "seconds": {:.3f}, "requests": {}, "iops": {:.0f}, )",
             options.sequential, seconds, totals.requests, requests / seconds);
  fmt::print(R"("mb_per_s": {:.1f}, "latency_us": {{"p50": {:.1f}, "p90": {:.1f}, )",
             static_cast<double>(totals.bytes) / 1e6 / seconds, totals.latencies.percentile(0.5),
             totals.latencies.percentile(0.9));
  fmt::print(R"("p99": {:.1f}, "p99.9": {:.1f}, "max": {:.1f}}})",
             totals.latencies.percentile(0.99), totals.latencies.percentile(0.999),
             totals.latencies.longest());
  if (options.server_pid)
    fmt::print(R"(, "server_cpu_us_per_request": {:.3f})",
               static_cast<double>(cpu) / 1000 / std::max(requests, 1.0));
  fmt::print("}}\n");
}

}  // namespace
}  // namespace obd::test

int main(int argc, char** argv) {
  using namespace obd::test;
  Options options;
  if (const auto status = parse(argc, argv, options)) return *status;
  Load load(options);
  if (!options.once && options.warm_up > 0) (void)load.run(after(options.warm_up));
  const auto cpu_now = [&] {
    return options.server_pid ? cpu_nanoseconds(*options.server_pid) : 0;
  };
  std::optional<double> limit = options.seconds;
  if (!limit && !options.once) limit = 3;
  const uint64_t cpu_before = cpu_now();
  const auto began = Clock::now();
  const Totals totals = options.requests != 0 ? load.run(std::nullopt, options.requests)
                        : limit               ? load.run(after(*limit))
                                              : load.run(std::nullopt);
  const std::chrono::duration<double> seconds = Clock::now() - began;
  report(options, totals, seconds.count(), cpu_now() - cpu_before);
}
