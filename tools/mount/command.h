// The subcommands of obd-mount, as those of obd (tools/obd/command.h). What they print under
// --json and with which status they end is part of docs/snapshotter.md, on which scripts build.

#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "core/base/result.h"

namespace obd::mount {

inline constexpr int kExitSuccess = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitUnsupported = 3;  // this host lacks what it takes
inline constexpr int kExitNotAttached = 4;
inline constexpr int kExitBusy = 5;  // in use, so left as it was

using Runner = std::function<Result<int>()>;

// Prints a line at once: a caller that was not told must not be left with something to undo.
Result<void> tell(const std::string& line);

// Says on standard error what went wrong; who does not listen is not waited for.
void complain(const std::string& sentence);

void add_dev(CLI::App& app, Runner& chosen);
void add_dir(CLI::App& app, Runner& chosen);
void add_umount(CLI::App& app, Runner& chosen);
void add_list(CLI::App& app, Runner& chosen);
void add_recover(CLI::App& app, Runner& chosen);
void add_doctor(CLI::App& app, Runner& chosen);
void add_supervise(CLI::App& app, Runner& chosen);  // for obd-mount itself

}  // namespace obd::mount
