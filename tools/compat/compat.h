// What the commands under overlaybd's own names have in common.
//
// They take overlaybd's options and say what its commands say, and do the work with the functions
// that obd uses: what differs is told in docs/overlaybd-commands.pod. Exit status: 0; what CLI11
// gives for a command line that was not understood; else what overlaybd's command gives.
//
// Thread-safety: none.

#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "core/layer/layer_writer.h"

namespace obd::compat {

inline constexpr uint64_t kGiB = uint64_t{1} << 30;  // what overlaybd calls a GB

// exit(-1), as most of overlaybd's commands end when something failed.
inline constexpr int kFailure = 255;

// Parses the command line and runs the action, whose value is the exit status; an error is told on
// standard error and ends with `failure`.
int run(CLI::App& app, int argc, char** argv, int failure,
        const std::function<Result<int>()>& action);

// An option that overlaybd has, and this program does not: giving it is an error that says why.
void add_refused(CLI::App& app, const std::string& name, const std::string& reason);
void add_refused_flag(CLI::App& app, const std::string& name, const std::string& reason);

// --upload and what belongs to it.
void add_refused_upload(CLI::App& app);

// --verbose, which these programs have no use for.
void add_verbose(CLI::App& app);

// --algorithm and --bs.
struct CompressionArguments {
  std::string algorithm;
  int block_size = 4;  // KiB
};
void add_compression(CLI::App& app, CompressionArguments& arguments);
Result<BlobOptions> compressed(const CompressionArguments& arguments);

}  // namespace obd::compat
