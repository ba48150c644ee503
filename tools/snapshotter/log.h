// What the snapshotter says to its administrator: a line on standard error for each thing.
//
// Thread-safety: all functions may be called from any thread.

#pragma once

#include <fmt/format.h>

#include <string_view>

namespace obd::snapshotter {

enum class LogLevel { debug, info, warning, error };

// Lines below this level are left out; info at the start.
void set_log_level(LogLevel level);

void log_line(LogLevel level, std::string_view line);

template <typename... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::error, fmt::format(format, std::forward<Args>(args)...));
}

// Text from a client for a sentence: without what could steer a terminal, and not endless.
std::string shown(std::string_view text);

}  // namespace obd::snapshotter
