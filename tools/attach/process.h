// The processes that serve an attached image: started so that they outlive their starter, written
// down before they run, and known again later for certain.
//
// Ownership: a ProcessWatch owns its descriptor. Thread-safety: free of state. A process with many
// threads may call spawn_detached(), because glibc's malloc goes on working in a fork of it.
// Errors: of the system calls; ESRCH when the process has ended.

#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/base/result.h"

namespace obd::attach {

// A process and not its number's next owner.
struct ProcessId {
  pid_t pid = 0;
  uint64_t start_ticks = 0;  // when it started, in clock ticks after the boot (proc(5), stat)

  bool operator==(const ProcessId&) const = default;
};

Result<ProcessId> identify_process(pid_t pid);

// One that has ended but was not yet waited for by its parent is not running.
bool is_running(const ProcessId& process);

// What the host shows of its processes: never fails, what has ended shows nothing.
std::vector<pid_t> all_processes();
std::string process_name(pid_t pid);
std::vector<std::string> process_words(pid_t pid);  // with which it was started

struct Program {
  std::vector<std::string> words;  // words[0] is a path
  std::string log_path;            // standard output and standard error are appended here
  // Where it is written down, for read_process_record(). Its folder's name must be in `words`, by
  // which the process is known again.
  std::string record_path;
  std::vector<int> kept_fds;  // stay open under the same numbers
  // In the way of writes to a disk: may go on when memory is short (PR_SET_IO_FLUSHER).
  bool serves_io = false;
  // Root's power over files is all that it keeps of root's power.
  bool only_files = false;
};

// Starts a program in a session of its own, as a child of init. Its record is on disk before the
// program runs, so that whoever dies meanwhile leaves nothing unknown behind.
Result<ProcessId> spawn_detached(const Program& program);

// nullopt when there is no record, and when what it tells of cannot be a process that was started
// for it: it is of another boot of the host, or that process runs something else.
Result<std::optional<ProcessId>> read_process_record(const std::string& path);

// To wait for the end of a process that need not be a child.
class ProcessWatch {
 public:
  static Result<ProcessWatch> open(const ProcessId& process);
  ProcessWatch(ProcessWatch&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  ProcessWatch& operator=(ProcessWatch&& other) noexcept;
  ~ProcessWatch();

  [[nodiscard]] int fd() const { return fd_; }                       // becomes readable at the end
  [[nodiscard]] bool wait(std::chrono::milliseconds timeout) const;  // true: has ended
  Result<void> signal(int number) const;

 private:
  explicit ProcessWatch(int fd) : fd_(fd) {}
  int fd_;
};

// Asks a process to end and makes it end when it has not after `patience`. Success when it is gone,
// or was gone.
Result<void> end_process(const ProcessId& process, int signal, std::chrono::milliseconds patience);

}  // namespace obd::attach
