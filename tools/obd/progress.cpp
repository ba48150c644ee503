#include "tools/obd/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "tools/obd/interrupt.h"
#include "tools/obd/size_text.h"

namespace obd::tool {
namespace {

using namespace std::chrono_literals;

constexpr auto kSilence = 1s;      // shorter work needs no line
constexpr auto kInterval = 200ms;  // between two drawings
constexpr const char* kEraseLine = "\r\x1b[K";

std::string duration_text(uint64_t seconds) {
  if (seconds < 3600) return fmt::format("{}:{:02}", seconds / 60, seconds % 60);
  return fmt::format("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

}  // namespace

Progress::Progress(std::string what, uint64_t total)
    : what_(std::move(what)),
      total_(total),
      terminal_(isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      next_draw_(start_ + kSilence) {}

Progress::~Progress() {
  if (drawn_) std::fputs(kEraseLine, stderr);
}

Result<void> Progress::advance(uint64_t bytes) {
  OBD_TRY(check_interrupt());
  done_ += bytes;
  if (!terminal_) return {};
  const Clock::time_point now = Clock::now();
  if (now >= next_draw_) draw(now);
  return {};
}

void Progress::draw(Clock::time_point now) {
  next_draw_ = now + kInterval;
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const double rate = static_cast<double>(done_) / elapsed;
  const uint64_t done = std::min(done_, total_);
  const double share = total_ == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total_);
  std::string left = "?";
  if (rate > 0) {
    left = duration_text(static_cast<uint64_t>(static_cast<double>(total_ - done) / rate));
  }
  const std::string line = fmt::format("{}{}: {:.0f} %, {} of {}, {}/s, {} left", kEraseLine, what_,
                                       share * 100, human_size(done), human_size(total_),
                                       human_size(static_cast<uint64_t>(rate)), left);
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
  drawn_ = true;
}

ReportProgress progress_lines() {
  struct Phase {
    std::string what;
    uint64_t done = 0;
    std::optional<Progress> line = {};
  };
  return [phase = std::make_shared<Phase>()](std::string_view what, uint64_t done, uint64_t total) {
    if (!phase->line || phase->what != what) {
      phase->what = what;
      phase->done = 0;
      phase->line.emplace(phase->what, total);
    }
    const uint64_t step = done - phase->done;
    phase->done = done;
    return phase->line->advance(step);
  };
}

}  // namespace obd::tool
