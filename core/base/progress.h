// How an operation that lasts tells how far it is, and learns that it is no longer wanted.
//
// Units: bytes.

#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "core/base/result.h"

namespace obd {

// Called from the thread that does the work, after each step of at most a few MiB. `what` names the
// phase ("reading", "moving"); `done` counts from 0 again in the next phase. An error ends the
// operation with that error, as any other failure of it would. May be empty.
using ReportProgress =
    std::function<Result<void>(std::string_view what, uint64_t done, uint64_t total)>;

inline Result<void> report_progress(const ReportProgress& report, std::string_view what,
                                    uint64_t done, uint64_t total) {
  return report ? report(what, done, total) : Result<void>();
}

}  // namespace obd
