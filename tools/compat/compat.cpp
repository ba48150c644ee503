#include "tools/compat/compat.h"

#include <fmt/format.h>

#include <bit>
#include <cstdio>
#include <exception>

#include "tools/obd/interrupt.h"

namespace obd::compat {

int run(CLI::App& app, int argc, char** argv, int failure,
        const std::function<Result<int>()>& action) {
  try {
    app.set_version_flag("--version", app.get_name() + " " OBD_VERSION);
    CLI11_PARSE(app, argc, argv);
    tool::catch_interrupts();
    const Result<int> status = action();
    tool::die_if_interrupted();
    if (!status) {
      fmt::print(stderr, "{}: {}\n", app.get_name(), status.error().message);
      return failure;
    }
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
      fmt::print(stderr, "{}: could not write to standard output\n", app.get_name());
      return failure;
    }
    return *status;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), error.what());
  }
  return failure;
}

void add_refused(CLI::App& app, const std::string& name, const std::string& reason) {
  const auto refuse = [name, reason](const std::string&) {
    throw CLI::ValidationError(name, reason);
  };
  app.add_option_function<std::string>(name, refuse, "Not supported: " + reason);
}

void add_refused_flag(CLI::App& app, const std::string& name, const std::string& reason) {
  app.add_flag_callback(
      name, [name, reason] { throw CLI::ValidationError(name, reason); },
      "Not supported: " + reason);
}

void add_refused_upload(CLI::App& app) {
  const std::string reason = "nothing is uploaded; push the layer with a registry's client";
  for (const char* name :
       {"--upload", "--upload_bs", "--cred_file_path", "--tls_key_path", "--tls_cert_path"}) {
    add_refused(app, name, reason);
  }
}

void add_verbose(CLI::App& app) {
  app.add_flag_callback("--verbose", [] {}, "Accepted; there is nothing more to say");
}

void add_compression(CLI::App& app, CompressionArguments& arguments) {
  app.add_option("--algorithm", arguments.algorithm, "lz4 or zstd (default: lz4)");
  app.add_option("--bs", arguments.block_size,
                 "KiB that are compressed together: 4, 8, 16, 32 or 64 (default: 4)");
}

Result<BlobOptions> compressed(const CompressionArguments& arguments) {
  BlobOptions options;
  if (arguments.algorithm.empty() || arguments.algorithm == "lz4") {
    options.compression = Compression::lz4;
  } else if (arguments.algorithm == "zstd") {
    options.compression = Compression::zstd;
  } else {
    return fail(EINVAL, "invalid '--algorithm' parameters: {} is neither lz4 nor zstd",
                arguments.algorithm);
  }
  if (arguments.block_size < 4 || arguments.block_size > 64 ||
      !std::has_single_bit(static_cast<unsigned>(arguments.block_size))) {
    return fail(EINVAL, "invalid '--bs' parameters: {} is none of 4, 8, 16, 32 and 64",
                arguments.block_size);
  }
  options.block_size = static_cast<uint32_t>(arguments.block_size) * 1024;
  return options;
}

}  // namespace obd::compat
