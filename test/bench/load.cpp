// An asynchronous NBD load generator: keeps a number of requests in flight on one or more
// connections and tells what came of it as one JSON object. `obd_load --help` lists the options.
//
// One thread drives all connections, so that the client stays cheap beside the server. What the
// server's requests cost is the growth of the time its threads ran, from
// /proc/PID/task/*/schedstat, over the measured span only: connecting and warming up are left out.

#include <dirent.h>
#include <fmt/format.h>
#include <getopt.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "test/e2e/nbd_client.h"

namespace obd::test {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view kHelp =
    R"(usage: obd_load [OPTION]... URI
Loads an NBD server and prints requests and MB per second and latencies as JSON.

  --connections N   connections (1)
  --depth N         requests in flight, over all connections (16)
  --block BYTES     bytes per request (4096)
  --mix R,W,Z       shares of reads, writes and zeroes in per cent (100,0,0)
  --sequential      ascending offsets; else random ones
  --span BYTES      use only the first BYTES of the disk
  --flush-every N   a flush after every N requests (none)
  --seconds S       how long to measure (3)
  --requests N      measure so many requests instead of a time
  --warm-up S       how long to run before measuring (0.3)
  --once            one pass over the span instead of a time; needs --sequential
  --seed N          of the random offsets (1)
  --server-pid PID  also tell the CPU time per request of that process
)";

struct Options {
  std::string uri;
  uint64_t connections = 1;
  uint64_t depth = 16;
  uint64_t block = 4096;                      // bytes
  std::array<uint64_t, 3> mix = {100, 0, 0};  // per cent of reads, writes, zeroes
  bool sequential = false;
  uint64_t span = 0;  // bytes; 0: the whole disk
  uint64_t flush_every = 0;
  double seconds = 3;
  uint64_t requests = 0;  // 0: as long as `seconds`
  double warm_up = 0.3;
  bool once = false;
  uint64_t seed = 1;
  std::optional<uint64_t> server_pid;
};

template <typename T>
T number(std::string_view text) {
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) die("not a number: {}", text);
  return value;
}

std::array<uint64_t, 3> parse_mix(std::string_view text) {
  std::array<uint64_t, 3> mix = {};
  for (uint64_t& share : mix) {
    const size_t comma = text.find(',');
    share = number<uint64_t>(text.substr(0, comma));
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    if (text.empty() && &share != &mix.back()) die("--mix needs three numbers");
  }
  if (!text.empty() || mix[0] > 100 || mix[1] > 100 || mix[0] + mix[1] + mix[2] != 100)
    die("--mix needs three numbers that make 100");
  return mix;
}

Options parse(int argc, char** argv) {
  enum Option {
    kConnections = 1,
    kDepth,
    kBlock,
    kMix,
    kSequential,
    kSpan,
    kFlushEvery,
    kSeconds,
    kRequests,
    kWarmUp,
    kOnce,
    kSeed,
    kServerPid,
    kHelpOption
  };
  const std::array<option, 15> table = {{{"connections", required_argument, nullptr, kConnections},
                                         {"depth", required_argument, nullptr, kDepth},
                                         {"block", required_argument, nullptr, kBlock},
                                         {"mix", required_argument, nullptr, kMix},
                                         {"sequential", no_argument, nullptr, kSequential},
                                         {"span", required_argument, nullptr, kSpan},
                                         {"flush-every", required_argument, nullptr, kFlushEvery},
                                         {"seconds", required_argument, nullptr, kSeconds},
                                         {"requests", required_argument, nullptr, kRequests},
                                         {"warm-up", required_argument, nullptr, kWarmUp},
                                         {"once", no_argument, nullptr, kOnce},
                                         {"seed", required_argument, nullptr, kSeed},
                                         {"server-pid", required_argument, nullptr, kServerPid},
                                         {"help", no_argument, nullptr, kHelpOption},
                                         {nullptr, 0, nullptr, 0}}};
  Options options;
  int chosen = 0;
  while ((chosen = getopt_long(argc, argv, "", table.data(), nullptr)) != -1) {
    switch (chosen) {
      case kConnections:
        options.connections = number<uint64_t>(optarg);
        break;
      case kDepth:
        options.depth = number<uint64_t>(optarg);
        break;
      case kBlock:
        options.block = number<uint64_t>(optarg);
        break;
      case kMix:
        options.mix = parse_mix(optarg);
        break;
      case kSequential:
        options.sequential = true;
        break;
      case kSpan:
        options.span = number<uint64_t>(optarg);
        break;
      case kFlushEvery:
        options.flush_every = number<uint64_t>(optarg);
        break;
      case kSeconds:
        options.seconds = number<double>(optarg);
        break;
      case kRequests:
        options.requests = number<uint64_t>(optarg);
        break;
      case kWarmUp:
        options.warm_up = number<double>(optarg);
        break;
      case kOnce:
        options.once = true;
        break;
      case kSeed:
        options.seed = number<uint64_t>(optarg);
        break;
      case kServerPid:
        options.server_pid = number<uint64_t>(optarg);
        break;
      case kHelpOption:
        fmt::print("{}", kHelp);
        std::exit(EXIT_SUCCESS);
      default:
        std::exit(EXIT_FAILURE);  // getopt has said what is wrong
    }
  }
  if (optind + 1 != argc) die("expected one URI; see --help");
  options.uri = argv[optind];
  if (options.connections == 0 || options.depth < options.connections || options.depth > 4096)
    die("--depth must be from --connections to 4096, --connections at least 1");
  if (options.block == 0 || options.block > (32U << 20)) die("--block must be from 1 to 32 MiB");
  if (options.once && !options.sequential) die("--once needs --sequential");
  return options;
}

// Nanoseconds that the threads of a process have run; those that have ended are not counted.
uint64_t cpu_nanoseconds(uint64_t pid) {
  const std::string directory = fmt::format("/proc/{}/task", pid);
  const std::unique_ptr<DIR, int (*)(DIR*)> tasks(opendir(directory.c_str()), closedir);
  if (!tasks) die("{}: no such process", directory);
  uint64_t sum = 0;
  while (const dirent* task = readdir(tasks.get())) {
    if (task->d_name[0] == '.') continue;
    std::ifstream file(fmt::format("{}/{}/schedstat", directory, task->d_name));
    uint64_t nanoseconds = 0;
    if (file >> nanoseconds) sum += nanoseconds;
  }
  return sum;
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
    for (uint64_t i = 0; i < options.depth; ++i) {
      slots_.emplace_back(options.block);
      // Random bytes: neither zeros nor compressible.
      for (std::byte& byte : slots_.back().buffer()) byte = static_cast<std::byte>(random_());
    }
  }

  // Runs until the deadline; without one, until the end of the span with --once, or so many
  // requests. Counts.
  Totals run(std::optional<Clock::time_point> deadline) {
    Totals totals;
    left_ = deadline || options_.requests == 0 ? UINT64_MAX : options_.requests;
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
    return options_.sequential ? next_sequential_++ % blocks_ : random_() % blocks_;
  }

  // False when the one pass, or the last request, is over.
  bool send_next(Slot& slot, NbdConnection& connection) {
    if (options_.flush_every != 0 && ++since_flush_ > options_.flush_every) {
      since_flush_ = 0;
      slot.begin();
      if (!connection.flush(slot)) die("the server went away");
      return true;
    }
    if ((options_.once && next_sequential_ == blocks_) || left_ == 0) return false;
    --left_;
    const uint64_t offset = next_block() * options_.block;
    const uint64_t dice = random_() % 100;
    slot.counted_bytes = options_.block;
    slot.begin();
    const bool sent = dice < options_.mix[0] ? connection.read(slot.buffer(), offset, slot)
                      : dice < options_.mix[0] + options_.mix[1]
                          ? connection.write(slot.buffer(), offset, 0, slot)
                          : connection.zero(offset, options_.block, 0, slot);
    if (!sent) die("the server went away");
    return true;
  }

  const Options& options_;
  std::mt19937_64 random_;
  std::vector<NbdConnection> connections_;
  std::deque<Slot> slots_;
  uint64_t blocks_ = 0;
  uint64_t next_sequential_ = 0;
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
  const Options options = parse(argc, argv);
  Load load(options);
  if (!options.once && options.warm_up > 0) (void)load.run(after(options.warm_up));
  const auto cpu_now = [&] {
    return options.server_pid ? cpu_nanoseconds(*options.server_pid) : 0;
  };
  const uint64_t cpu_before = cpu_now();
  const auto began = Clock::now();
  const bool until_done = options.once || options.requests != 0;
  const Totals totals = load.run(until_done ? std::nullopt : std::optional(after(options.seconds)));
  const std::chrono::duration<double> seconds = Clock::now() - began;
  report(options, totals, seconds.count(), cpu_now() - cpu_before);
}
