// A line on the terminal about work that lasts: percent, rate, time left.
//
// Silent when standard error is no terminal, and for work that takes less than a second. The line
// is erased when the object goes away.
//
// Units: bytes. Thread-safety: none.

#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "core/base/progress.h"
#include "core/base/result.h"

namespace obd::tool {

class Progress {
 public:
  // `what` stands at the start of the line; `total` is how many bytes there are to do.
  Progress(std::string what, uint64_t total);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Counts bytes as done. EINTR when the user has asked the program to stop (interrupt.h), so that
  // a loop which reports its progress can be interrupted and clean up.
  Result<void> advance(uint64_t bytes);

 private:
  using Clock = std::chrono::steady_clock;

  void draw(Clock::time_point now);

  std::string what_;
  uint64_t total_;
  uint64_t done_ = 0;
  bool terminal_;
  bool drawn_ = false;
  Clock::time_point start_;
  Clock::time_point next_draw_;
};

// Shows each phase of an operation of the engine on such a line, and ends the operation when the
// user has asked the program to stop.
ReportProgress progress_lines();

}  // namespace obd::tool
