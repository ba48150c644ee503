// A detached program is the grandchild of its starter. The child in between writes nothing; the
// grandchild writes its own record and only then becomes the program: had the starter written it,
// a kill between fork and write would leave a server that nobody knows and that holds the image.
// It also waits until the child in between is gone: nbdkit 1.32 asks for SIGTERM at its parent's
// death even without --exit-with-parent, and would take that child's end for it.

#include "tools/attach/process.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <sys/pidfd.h>  // which forgets to say so for C++, in Debian 12's C library
}

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <sstream>
#include <string_view>

#include "core/io/file.h"

namespace obd::attach {
namespace {

using std::chrono::milliseconds;

constexpr size_t kMaxStatSize = 4096;
constexpr size_t kMaxCommandLine = 1 << 20;
constexpr size_t kRecordSize = 80;
// What a new process is called while it is written down and not yet the program.
constexpr const char* kNewProcess = "obd-new-process";

// proc(5): the second field is the program's name in parentheses, which may hold anything; the
// state is the third and the start time the 22nd.
struct ProcessStat {
  std::string name;
  char state = '\0';
  uint64_t start_ticks = 0;
};

Result<ProcessStat> read_stat(pid_t pid) {
  const std::string path = fmt::format("/proc/{}/stat", pid);
  OBD_TRY_ASSIGN(const std::string text, read_whole(posix_file_system(), path, kMaxStatSize));
  ProcessStat stat;
  size_t at = text.rfind(')');
  if (const size_t name = text.find('('); name < at && at != std::string::npos) {
    stat.name = text.substr(name + 1, at - name - 1);
  }
  for (int field = 2; field < 22 && at != std::string::npos; ++field) {
    at = text.find(' ', at + 1);
    if (field == 2 && at != std::string::npos && at + 1 < text.size()) stat.state = text[at + 1];
  }
  if (at == std::string::npos) return fail(EIO, "{}: is not what proc(5) says", path);
  const auto [end, code] =
      std::from_chars(text.data() + at + 1, text.data() + text.size(), stat.start_ticks);
  if (code != std::errc()) return fail(EIO, "{}: has no start time", path);
  return stat;
}

// Whether a process is one that this record can be of. Its programs are all told a path below the
// record's folder, or that folder's name. One that is ending has no words any more.
bool has_command_of(const std::string& record_path, const ProcessStat& stat, pid_t pid) {
  if (stat.name == kNewProcess) return true;
  const auto words = process_words(pid);
  const std::string folder = directory_of(record_path);
  const std::string name = folder.substr(folder.rfind('/') + 1);
  return words.empty() || std::ranges::any_of(words, [&](const std::string& word) {
           return word.find(name) != std::string::npos;
         });
}

// In place: a successor must be able to start when there is no space left for another file.
Result<void> write_record(const std::string& path, const ProcessId& process) {
  OBD_TRY_ASSIGN(const std::string boot_id, posix_file_system().boot_id());
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return fail_errno(errno, "{}: cannot open", path);
  const std::string text =
      fmt::format("{:<{}}\n", fmt::format("{} {} {}", process.pid, process.start_ticks, boot_id),
                  kRecordSize - 1);
  const bool written =
      ::pwrite(fd, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
  const int code = errno;
  ::close(fd);
  if (!written) return fail_errno(code, "{}: cannot be written", path);
  return {};
}

// Memory that a dead server frees is not worth what dies with it.
void survive_lack_of_memory() {
  const int fd = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  [[maybe_unused]] const ssize_t written = ::write(fd, "-1000", 5);  // needs root
  ::close(fd);
}

// What the engine needs to read, write and replace files of any owner. Everything else of root's
// power goes, for this program and all that it could start.
void keep_only_file_capabilities() {
  constexpr std::array kKept = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER};
  for (int capability = 0; capability <= CAP_LAST_CAP; ++capability) {
    if (std::ranges::find(kKept, capability) == kKept.end()) {
      ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);  // EPERM: there was no such power
    }
  }
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

// 255 lowers, connections and a log: the usual soft limit of 1024 is enough, a smaller one not.
void raise_file_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// Everything that the program must not inherit. Returns an errno.
int prepare_descriptors(const Program& program) {
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  const int log = ::open(program.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (null < 0 || log < 0) return errno;
  if (::dup2(null, STDIN_FILENO) < 0 || ::dup2(log, STDOUT_FILENO) < 0 ||
      ::dup2(log, STDERR_FILENO) < 0) {
    return errno;
  }
  if (::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0) return errno;
  for (const int fd : program.kept_fds) {
    if (::fcntl(fd, F_SETFD, 0) < 0) return errno;
  }
  return 0;
}

int become(const Program& program) {
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGCHLD}) ::signal(number, SIG_DFL);
  // The folder that the starter is in can be unmounted while the program runs.
  if (::chdir("/") != 0) return errno;
  ::umask(077);
  ::prctl(PR_SET_NAME, kNewProcess, 0, 0, 0);
  const auto self = identify_process(::getpid());
  if (!self) return self.error().code;
  if (const auto written = write_record(program.record_path, *self); !written) {
    return written.error().code;
  }
  if (const int code = prepare_descriptors(program); code != 0) return code;
  raise_file_limit();
  if (program.serves_io) {
    ::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);  // needs root; only a help
    survive_lack_of_memory();
  }
  if (program.only_files) keep_only_file_capabilities();
  std::vector<char*> argv;
  for (const std::string& word : program.words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::execv(argv[0], argv.data());
  return errno;
}

// What the grandchild says through its socket.
struct Report {
  pid_t pid = 0;
  int code = 0;  // why it could not become the program
};

[[noreturn]] void run_grandchild(const Program& program, int starter) {
  Report report{.pid = ::getpid(), .code = 0};
  bool told = ::send(starter, &report, sizeof report, MSG_NOSIGNAL) == sizeof report;
  char go = 0;
  ssize_t got = 0;
  do {
    got = ::recv(starter, &go, sizeof go, 0);
  } while (got < 0 && errno == EINTR);
  if (!told || got != sizeof go) ::_exit(126);  // the starter is dead
  report.code = become(program);
  told = ::send(starter, &report, sizeof report, MSG_NOSIGNAL) == sizeof report;
  ::_exit(told ? 127 : 126);
}

Result<Report> read_report(int grandchild) {
  Report report;
  ssize_t got = 0;
  do {
    got = ::recv(grandchild, &report, sizeof report, 0);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return fail_errno(errno, "cannot hear from a new process");
  if (got == 0) return Report{};  // it has become the program, or it is dead
  if (got != sizeof report) return fail(EIO, "a new process spoke nonsense");
  return report;
}

}  // namespace

Result<ProcessId> identify_process(pid_t pid) {
  OBD_TRY_ASSIGN(const ProcessStat stat, read_stat(pid));
  return ProcessId{.pid = pid, .start_ticks = stat.start_ticks};
}

bool is_running(const ProcessId& process) {
  if (process.pid <= 0) return false;
  const auto stat = read_stat(process.pid);
  return stat && stat->start_ticks == process.start_ticks && stat->state != 'Z' &&
         stat->state != 'X';
}

std::vector<pid_t> all_processes() {
  std::vector<pid_t> pids;
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", code)) {
    const std::string name = entry.path().filename();
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error == std::errc() && end == name.data() + name.size()) pids.push_back(pid);
  }
  return pids;
}

std::string process_name(pid_t pid) {
  const auto name = read_whole(posix_file_system(), fmt::format("/proc/{}/comm", pid), 64);
  return name ? name->substr(0, name->find('\n')) : "?";
}

std::vector<std::string> process_words(pid_t pid) {
  std::vector<std::string> words;
  const auto text =
      read_whole(posix_file_system(), fmt::format("/proc/{}/cmdline", pid), kMaxCommandLine);
  std::istringstream stream(text ? *text : std::string());
  for (std::string word; std::getline(stream, word, '\0');) words.push_back(word);
  return words;
}

Result<ProcessId> spawn_detached(const Program& program) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return fail_errno(errno, "cannot make a socket");
  }
  const pid_t child = ::fork();
  if (child < 0) {
    const int code = errno;
    ::close(ends[0]);
    ::close(ends[1]);
    return fail_errno(code, "{}: cannot start", program.words.front());
  }
  if (child == 0) {
    ::close(ends[0]);
    ::setsid();
    const pid_t grandchild = ::fork();
    if (grandchild == 0) run_grandchild(program, ends[1]);
    ::_exit(grandchild < 0 ? 1 : 0);
  }
  ::close(ends[1]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  Result<Report> first = read_report(ends[0]);
  const char go = 1;
  if (first && first->pid != 0) ::send(ends[0], &go, sizeof go, MSG_NOSIGNAL);
  Result<Report> second = first ? read_report(ends[0]) : first;
  ::close(ends[0]);
  OBD_TRY(first);
  OBD_TRY(second);
  if (first->pid == 0) return fail(EAGAIN, "{}: cannot start: no process", program.words.front());
  if (second->code != 0) return fail_errno(second->code, "{}: cannot start", program.words.front());
  auto recorded = read_process_record(program.record_path);
  OBD_TRY(recorded);
  if (!*recorded || (*recorded)->pid != first->pid) {
    return fail(EIO, "{}: does not tell of process {}", program.record_path, first->pid);
  }
  return **recorded;
}

Result<std::optional<ProcessId>> read_process_record(const std::string& path) {
  auto text = read_whole(posix_file_system(), path, 2 * kRecordSize);
  if (!text) {
    if (text.error().code == ENOENT) return std::nullopt;
    return std::unexpected(text.error());
  }
  // Its writer found no space or was killed, and so did not become the program.
  if (text->empty()) return std::nullopt;
  ProcessId process;
  const char* const end = text->data() + text->size();
  const auto pid = std::from_chars(text->data(), end, process.pid);
  std::errc failed = pid.ec;
  std::string boot_id;
  if (failed == std::errc() && pid.ptr < end && *pid.ptr == ' ') {
    const auto start = std::from_chars(pid.ptr + 1, end, process.start_ticks);
    failed = start.ec;
    std::istringstream(std::string(start.ptr, end)) >> boot_id;
  }
  if (failed != std::errc() || process.pid <= 0) {
    return fail(EINVAL, "{}: is no record of a process; what it holds is not believed", path);
  }
  // Numbers and start times of another boot are anybody's. (Earlier versions wrote down no boot.)
  OBD_TRY_ASSIGN(const std::string this_boot, posix_file_system().boot_id());
  if (!boot_id.empty() && boot_id != this_boot) return std::nullopt;
  const auto stat = read_stat(process.pid);
  if (stat && stat->start_ticks == process.start_ticks &&
      !has_command_of(path, *stat, process.pid)) {
    return std::nullopt;
  }
  return process;
}

// ---- ProcessWatch ----

Result<ProcessWatch> ProcessWatch::open(const ProcessId& process) {
  const int fd = ::pidfd_open(process.pid, 0);
  if (fd < 0) return fail_errno(errno, "process {}", process.pid);
  ProcessWatch watch(fd);
  // Checked after opening: from now on the descriptor stands for one process only.
  if (!is_running(process)) return fail(ESRCH, "process {} has ended", process.pid);
  return watch;
}

ProcessWatch& ProcessWatch::operator=(ProcessWatch&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

ProcessWatch::~ProcessWatch() {
  if (fd_ >= 0) ::close(fd_);
}

bool ProcessWatch::wait(milliseconds timeout) const {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    const auto left =
        std::chrono::duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd poll{.fd = fd_, .events = POLLIN, .revents = 0};
    const int ready = ::poll(&poll, 1, static_cast<int>(std::max<int64_t>(left.count(), 0)));
    if (ready > 0) return true;
    if (ready == 0 || errno != EINTR) return false;
  }
}

Result<void> ProcessWatch::signal(int number) const {
  if (::pidfd_send_signal(fd_, number, nullptr, 0) != 0) {
    return fail_errno(errno, "cannot send signal {}", number);
  }
  return {};
}

Result<void> end_process(const ProcessId& process, int signal, milliseconds patience) {
  auto watch = ProcessWatch::open(process);
  if (!watch) {
    if (watch.error().code == ESRCH) return {};
    return std::unexpected(watch.error());
  }
  constexpr milliseconds kForKill{10'000};
  for (const auto& [number, wait] : {std::pair{signal, patience}, std::pair{SIGKILL, kForKill}}) {
    if (const auto sent = watch->signal(number); !sent) {
      if (sent.error().code == ESRCH) return {};
      return sent;
    }
    if (watch->wait(wait)) return {};
  }
  return fail(EBUSY, "process {} does not end: it hangs in the kernel", process.pid);
}

}  // namespace obd::attach
