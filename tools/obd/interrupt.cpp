#include "tools/obd/interrupt.h"

#include <cerrno>
#include <csignal>

namespace obd::tool {
namespace {

volatile std::sig_atomic_t caught_signal = 0;

extern "C" void note_signal(int number) { caught_signal = number; }

}  // namespace

void catch_interrupts() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction previous = {};
    if (sigaction(number, nullptr, &previous) == 0 && previous.sa_handler == SIG_IGN) continue;
    struct sigaction action = {};
    action.sa_handler = note_signal;
    // No SA_RESTART: waiting for a child program has to end.
    sigaction(number, &action, nullptr);
  }
}

Result<void> check_interrupt() {
  if (caught_signal != 0) return fail(EINTR, "interrupted");
  return {};
}

void die_if_interrupted() {
  const int number = caught_signal;
  if (number == 0) return;
  std::signal(number, SIG_DFL);
  std::raise(number);
}

}  // namespace obd::tool
