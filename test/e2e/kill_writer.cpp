// Writes to a disk until its server is killed, and judges afterwards what the disk holds.
//
//   kill_writer fill RAW DIR SIZE         makes the raw disk RAW, every cell known, and the folder
//   DIR kill_writer run URI DIR SEED PID N    random requests over four connections; after N
//   completed
//                                         ones kills PID with SIGKILL and takes what still comes
//   kill_writer verify URI DIR            after the restart: every cell must hold what the journal
//                                         allows; what it holds is where the next run starts from
//
// SEED is another for every run on one DIR. DIR keeps two files. `state`: the stamp of every cell
// (disk_cells.h) before the run. `journal`: a record for every request before it is sent and
// another when it has completed, in that order of events, so that a death at any moment can be
// judged.
//
// A cell may hold what any request that touched it left there, and its state before the run, except
// what was overwritten for good: X is, when some Y completed that began after X had completed. A
// request that never completed may have happened or not. Exit status 0 when the disk is right.

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "test/e2e/disk_cells.h"
#include "test/e2e/disk_state.h"
#include "test/e2e/nbd_client.h"

namespace obd::test {
namespace {

constexpr size_t kConnections = 4;
constexpr size_t kDepth = 16;                  // requests in flight per connection
constexpr uint64_t kHotPart = 1U << 20;        // bytes that half of all requests fall into
constexpr uint64_t kLongestWrite = 64U << 10;  // bytes
constexpr uint64_t kLongestZero = 512U << 10;  // bytes
// Marks the stamps of `fill`; those of requests have the run's seed in their upper half.
constexpr Stamp kFillStamp = uint64_t{1} << 62;
constexpr uint64_t kSeedLimit = uint64_t{1} << 30;

enum class Kind : uint32_t { write, zero, trim, flush };

// A journal record, as it lies in the file.
struct Event {
  uint32_t completed = 0;  // 0: about to be sent, 1: completed
  Kind kind = Kind::write;
  uint64_t id = 0;  // of the request; for a write also its stamp
  uint64_t offset = 0;
  uint64_t length = 0;
};

std::vector<Event> load_journal(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  std::vector<Event> events(static_cast<size_t>(file.tellg()) / sizeof(Event));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(events.data()),
            static_cast<std::streamsize>(events.size() * sizeof(Event)));
  if (!file) die("{}: cannot read", path);
  return events;
}

class Journal {
 public:
  explicit Journal(const std::string& path)
      : file_(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
    if (file_ == -1) die("{}: {}", path, std::strerror(errno));
  }
  ~Journal() { close(file_); }
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Written straight away, so that the record is there before the request is.
  void append(const Event& event) {
    if (write(file_, &event, sizeof(event)) != ssize_t{sizeof(event)})
      die("journal: {}", std::strerror(errno));
  }

 private:
  int file_;
};

// One place for a request in flight, used again and again.
class Slot : public Request {
 public:
  Slot(Journal& journal, uint64_t& completions)
      : buffer_(kLongestWrite), journal_(journal), completions_(completions) {}

  void completed(int error) override {
    in_flight_ = false;
    error_ = error;
    if (error != 0) return;
    Event event = event_;
    event.completed = 1;
    journal_.append(event);
    ++completions_;
  }

  // False when the connection has died.
  bool send(NbdConnection& connection, const Event& event, uint32_t flags) {
    event_ = event;
    journal_.append(event);
    in_flight_ = true;
    switch (event.kind) {
      case Kind::write: {
        const auto data = std::span(buffer_).first(event.length);
        fill_cells(data, event.id, event.offset / kCellSize);
        return connection.write(data, event.offset, flags, *this);
      }
      case Kind::zero:
        return connection.zero(event.offset, event.length, flags, *this);
      case Kind::trim:
        return connection.trim(event.offset, event.length, flags, *this);
      case Kind::flush:
        return connection.flush(*this);
    }
    return false;
  }

  [[nodiscard]] bool in_flight() const { return in_flight_; }
  [[nodiscard]] int error() const { return error_; }  // of the last request that ended
  [[nodiscard]] const Event& event() const { return event_; }

 private:
  std::vector<std::byte> buffer_;
  Journal& journal_;
  uint64_t& completions_;
  Event event_;
  bool in_flight_ = false;
  int error_ = 0;
};

class RandomRequests {
 public:
  // Every run has another seed, so that no stamp is ever used twice.
  RandomRequests(uint64_t seed, uint64_t disk_size)
      : random_(seed), next_id_(seed << 32), disk_size_(disk_size) {}

  Event next(uint32_t& flags) {
    const uint64_t dice = below(100);
    Event event;
    event.id = next_id_++;
    event.kind = dice < 60   ? Kind::write
                 : dice < 78 ? Kind::zero
                 : dice < 96 ? Kind::trim
                             : Kind::flush;
    flags = 0;
    if (event.kind == Kind::flush) return event;
    if (below(16) == 0) flags |= LIBNBD_CMD_FLAG_FUA;
    if (event.kind == Kind::zero && below(2) == 0) flags |= LIBNBD_CMD_FLAG_NO_HOLE;
    const uint64_t unit = below(2) == 0 ? 4096 : kCellSize;
    const uint64_t longest = event.kind == Kind::write ? kLongestWrite : kLongestZero;
    // Most requests are short, as a file system's are.
    event.length = unit * (below(4) != 0 ? 1 + below(8) : 1 + below(longest / unit));
    const uint64_t part = below(2) == 0 ? kHotPart : disk_size_;
    event.offset = below((part - event.length) / unit + 1) * unit;
    return event;
  }

 private:
  uint64_t below(uint64_t limit) { return random_() % limit; }

  std::mt19937_64 random_;
  uint64_t next_id_;
  uint64_t disk_size_;
};

void fill(const std::string& raw, const std::string& directory, uint64_t size) {
  if (size == 0 || size % kCellSize != 0) die("the size must be a multiple of {}", kCellSize);
  if (mkdir(directory.c_str(), 0755) == -1) die("{}: {}", directory, std::strerror(errno));
  DiskState state(size / kCellSize);
  std::vector<std::byte> bytes(kCellSize);
  std::ofstream file(raw, std::ios::binary | std::ios::trunc);
  for (uint64_t cell = 0; cell < state.size(); ++cell) {
    state[cell] = kFillStamp + cell;
    fill_cells(bytes, state[cell], cell);
    file.write(reinterpret_cast<const char*>(bytes.data()), kCellSize);
  }
  if (!file.flush()) die("{}: cannot write", raw);
  save_state(directory + "/state", state);
}

void run(const std::string& uri, const std::string& directory, uint64_t seed, pid_t server,
         uint64_t kill_after) {
  if (seed == 0 || seed >= kSeedLimit) die("the seed must be from 1 to {}", kSeedLimit - 1);
  std::vector<NbdConnection> connections;
  for (size_t i = 0; i < kConnections; ++i) connections.emplace_back(uri);
  RandomRequests requests(seed, connections[0].size());
  Journal journal(directory + "/journal");
  uint64_t completions = 0;
  std::deque<Slot> slots;  // slot i belongs to connection i % kConnections
  for (size_t i = 0; i < kConnections * kDepth; ++i) slots.emplace_back(journal, completions);

  bool killed = false;
  do {
    for (size_t i = 0; i < slots.size(); ++i) {
      if (slots[i].error() != 0 && !killed)
        die("request {} at {} failed before the kill: {}", slots[i].event().id,
            slots[i].event().offset, std::strerror(slots[i].error()));
      if (killed || slots[i].in_flight()) continue;
      uint32_t flags = 0;
      const Event event = requests.next(flags);
      if (!slots[i].send(connections[i % kConnections], event, flags))
        die("the server went away before it was killed");
    }
    if (!killed && completions >= kill_after) {
      if (kill(server, SIGKILL) == -1) die("kill {}: {}", server, std::strerror(errno));
      killed = true;
    }
  } while (poll_connections(connections));
  if (!killed) die("the server went away after {} requests, before it was killed", completions);
  fmt::print("seed {}: killed the server after {} completed requests\n", seed, completions);
}

struct Candidate {
  Stamp stamp = 0;
  uint64_t id = 0;  // of the request; 0 for the state before the run
};

struct Fate {
  uint64_t began = 0;      // position in the journal
  uint64_t completed = 0;  // position in the journal; 0 while it has not
};

AllowedStamps allowed(const DiskState& state, const std::vector<Event>& journal) {
  std::vector<std::vector<Candidate>> cells(state.size());
  for (size_t cell = 0; cell < state.size(); ++cell)
    cells[cell] = {{.stamp = state[cell], .id = 0}};
  // The identifiers of one run follow one another.
  uint64_t first_id = UINT64_MAX;
  for (const Event& event : journal) first_id = std::min(first_id, event.id);
  std::vector<Fate> fates(journal.size() + 1);  // 0: the state before the run
  const auto fate_of = [&](uint64_t id) -> Fate& { return fates[id == 0 ? 0 : id - first_id + 1]; };
  fates[0] = {.began = 0, .completed = 1};
  for (size_t i = 0; i < journal.size(); ++i) {
    const Event& event = journal[i];
    const uint64_t now = i + 2;
    Fate& fate = fate_of(event.id);
    (event.completed != 0 ? fate.completed : fate.began) = now;
    const uint64_t end = (event.offset + event.length) / kCellSize;
    for (uint64_t cell = event.offset / kCellSize; cell < end; ++cell) {
      auto& candidates = cells[cell];
      if (event.completed == 0) {
        candidates.push_back(
            {.stamp = event.kind == Kind::write ? event.id : kZeroStamp, .id = event.id});
        continue;
      }
      std::erase_if(candidates, [&](const Candidate& candidate) {
        const uint64_t completed = fate_of(candidate.id).completed;
        return completed != 0 && completed < fate.began;
      });
    }
  }
  AllowedStamps stamps(state.size());
  for (size_t cell = 0; cell < cells.size(); ++cell)
    for (const Candidate& candidate : cells[cell]) stamps[cell].push_back(candidate.stamp);
  return stamps;
}

void verify(const std::string& uri, const std::string& directory) {
  const DiskState state = load_state(directory + "/state");
  const AllowedStamps stamps = allowed(state, load_journal(directory + "/journal"));
  NbdConnection connection(uri);
  save_state(directory + "/state", check_disk(connection, stamps));
  const Journal emptied(directory + "/journal");
}

}  // namespace
}  // namespace obd::test

int main(int argc, char** argv) {
  using namespace obd::test;
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::string command = arguments.empty() ? "" : arguments[0];
  if (command == "fill" && arguments.size() == 4)
    fill(arguments[1], arguments[2], number(arguments[3]));
  else if (command == "run" && arguments.size() == 6)
    run(arguments[1], arguments[2], number(arguments[3]), static_cast<pid_t>(number(arguments[4])),
        number(arguments[5]));
  else if (command == "verify" && arguments.size() == 3)
    verify(arguments[1], arguments[2]);
  else
    die("usage: kill_writer fill RAW DIR SIZE | run URI DIR SEED PID N | verify URI DIR");
}
