// Stopping in good order on SIGINT, SIGTERM and SIGHUP: the signal only sets a flag, loops ask for
// it and fail, and on the way out temporary files are removed.
//
// Thread-safety: all functions may be called from any thread.

#pragma once

#include "core/base/result.h"

namespace obd::tool {

// From now on the signals set the flag. A signal that the parent had set to be ignored stays so.
void catch_interrupts();

// EINTR once one of the signals has come.
Result<void> check_interrupt();

// Ends the process by the signal that came, as if it had not been caught; returns when none came.
void die_if_interrupted();

}  // namespace obd::tool
