// What the parsing of command lines has in common, for programs that have subcommands.

#pragma once

#include <CLI/CLI.hpp>
#include <optional>

namespace obd::tool {

// Parses, which runs the callbacks of what was named. The value is an exit status when the program
// has nothing more to do: after --help and --version, and after a command line that was not
// understood, of which standard error has been told. Options that have no value ('--size ""', from
// a variable of a script that is not set) are not understood, except for --message.
std::optional<int> parse_command_line(CLI::App& app, int argc, char** argv);

}  // namespace obd::tool
