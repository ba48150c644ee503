// The subcommands of obd. Each add_ function puts one subcommand with its options into the parser;
// when the command line names it, parsing sets `chosen` to what runs it.
//
// What runs returns the exit status or an Error, which main() prints; it prints its results to
// standard output, and warnings and progress to standard error.

#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "core/base/result.h"

namespace obd::tool {

// Exit statuses, of `check` too: it found something wrong; it could not look.
inline constexpr int kExitSuccess = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitCouldNotLook = 2;

using Runner = std::function<Result<int>()>;

void add_create(CLI::App& app, Runner& chosen);
void add_info(CLI::App& app, Runner& chosen);
void add_check(CLI::App& app, Runner& chosen);
void add_map(CLI::App& app, Runner& chosen);
void add_seal(CLI::App& app, Runner& chosen);
void add_commit(CLI::App& app, Runner& chosen);
void add_merge(CLI::App& app, Runner& chosen);
void add_compact(CLI::App& app, Runner& chosen);
void add_resize(CLI::App& app, Runner& chosen);
void add_clone(CLI::App& app, Runner& chosen);
void add_convert(CLI::App& app, Runner& chosen);
void add_verify(CLI::App& app, Runner& chosen);
void add_import(CLI::App& app, Runner& chosen);
void add_export(CLI::App& app, Runner& chosen);
void add_import_tar(CLI::App& app, Runner& chosen);
void add_export_oci(CLI::App& app, Runner& chosen);

}  // namespace obd::tool
