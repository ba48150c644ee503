// What obd-fuse tells a person while it runs: one line on standard error.
//
// Thread-safety: may be called from any thread.

#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <utility>

namespace obd::fuse {

template <typename... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
  const std::string line =
      fmt::format("obd-fuse: {}\n", fmt::format(format, std::forward<Args>(args)...));
  std::fputs(line.c_str(), stderr);
}

}  // namespace obd::fuse
