// obd-mount: attaches images as block devices and mounts them. One file a subcommand; this one
// parses the command line, runs what was chosen, and turns errors into a sentence and an exit
// status.

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>

#include "tools/mount/command.h"
#include "tools/obd/command_line.h"
#include "tools/obd/interrupt.h"

namespace obd::mount {
namespace {

using AddCommand = void (*)(CLI::App&, Runner&);
constexpr AddCommand kCommands[] = {add_dev,     add_dir,    add_umount,   add_list,
                                    add_recover, add_doctor, add_supervise};

constexpr const char* kExamples = R"(Examples:
  obd-mount dir disk /mnt           mount an image
  obd-mount dev disk                a block device for it, printed
  obd-mount umount /mnt             undo either: by directory, device or image
  obd-mount list                    what is attached
  obd-mount doctor                  what this host can do

'obd-mount COMMAND --help' tells all about a command. Exit status: 0 success, 1 failure,
2 the command line was not understood, 3 this host lacks what it takes, 4 not attached, 5 in use.)";

// kExitNotAttached is umount's alone, and said by it: the kernel has ENOTCONN for dead FUSE mounts.
int exit_status(const Error& error) {
  switch (error.code) {
    case EOPNOTSUPP:
      return kExitUnsupported;
    case EBUSY:
      return kExitBusy;
    default:
      return kExitFailure;
  }
}

int run(int argc, char** argv) {
  CLI::App app("Attaches layered disk images as block devices, and mounts them.", "obd-mount");
  app.set_version_flag("--version", "obd-mount " OBD_VERSION);
  app.get_formatter()->column_width(34);
  app.footer(kExamples);
  app.require_subcommand(1);
  Runner chosen;
  for (const AddCommand add : kCommands) add(app, chosen);

  if (const auto status = tool::parse_command_line(app, argc, argv)) return *status;

  tool::catch_interrupts();
  // Who closed his end of the pipe cannot be told, and that is a failure to be undone.
  std::signal(SIGPIPE, SIG_IGN);
  const Result<int> status = chosen();
  if (!status) {
    tool::die_if_interrupted();
    complain(status.error().message);
    return exit_status(status.error());
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    complain("could not write to standard output");
    return kExitFailure;
  }
  return *status;
}

// A file that is opened later must not become the standard output, and take what is printed. Not
// for writing: whoever closed it cannot be told.
bool keep_standard_descriptors() {
  int fd = ::open("/dev/null", O_RDONLY);
  while (fd >= 0 && fd <= STDERR_FILENO) fd = ::open("/dev/null", O_RDONLY);
  return fd >= 0 && ::close(fd) == 0;
}

}  // namespace

Result<void> tell(const std::string& line) {
  if (std::fputs((line + "\n").c_str(), stdout) >= 0 && std::fflush(stdout) == 0) return {};
  return fail_errno(errno, "could not write to standard output");
}

void complain(const std::string& sentence) {
  std::fputs(fmt::format("obd-mount: {}\n", sentence).c_str(), stderr);
}

}  // namespace obd::mount

int main(int argc, char** argv) {
  try {
    if (!obd::mount::keep_standard_descriptors()) return obd::mount::kExitFailure;
    return obd::mount::run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs("obd-mount: out of memory\n", stderr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "obd-mount: internal error: %s\n", error.what());
  }
  return obd::mount::kExitFailure;
}
