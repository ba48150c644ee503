// overlaybd-zfile: compresses a file as a ZFile, extracts one, verifies one.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "core/image/config.h"
#include "core/io/output_file.h"
#include "core/zfile/blob_writer.h"
#include "core/zfile/open_blob.h"
#include "tools/compat/compat.h"
#include "tools/obd/common.h"
#include "tools/obd/interrupt.h"

namespace obd::compat {
namespace {

constexpr size_t kCopySize = size_t{4} << 20;

struct ZfileArguments {
  bool tar = false;
  bool extract = false;
  bool verify = false;
  bool force = false;
  CompressionArguments compression;
  std::string source;
  std::string target;
};

Result<size_t> read_standard_input(std::span<std::byte> out) {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t count = ::read(STDIN_FILENO, out.data() + done, out.size() - done);
    if (count < 0 && errno == EINTR) {
      OBD_TRY(tool::check_interrupt());
      continue;
    }
    if (count < 0) return fail_errno(errno, "standard input: cannot read");
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  return done;
}

// As refuse_taken(), and for what is being read, whatever it is called.
Result<void> refuse_source(FileSystem& fs, const ZfileArguments& arguments,
                           const std::string& target) {
  if (!arguments.target.empty()) {
    ImageConfig source;
    source.path = arguments.source;
    OBD_TRY(refuse_image_file(fs, source, target));
  }
  return tool::refuse_taken(fs, target, arguments.force);
}

Result<int> compress(FileSystem& fs, const ZfileArguments& arguments) {
  const bool piped = arguments.target.empty();
  const std::string& target = piped ? arguments.source : arguments.target;
  OBD_TRY_ASSIGN(BlobOptions options, compressed(arguments.compression));
  options.tar = arguments.tar;
  std::unique_ptr<File> source;
  if (!piped) {
    OBD_TRY_ASSIGN(source, fs.open(arguments.source, Access::read_only));
  }
  OBD_TRY(refuse_source(fs, arguments, target));
  fmt::print("compress file {} as {}\n", piped ? "" : arguments.source, target);
  OBD_TRY_ASSIGN(const auto writer, BlobWriter::create(fs, target, options, arguments.force));
  std::vector<std::byte> buffer(kCopySize);
  for (uint64_t offset = 0;;) {
    OBD_TRY(tool::check_interrupt());
    OBD_TRY_ASSIGN(const size_t got,
                   source ? source->read_at(buffer, offset) : read_standard_input(buffer));
    OBD_TRY(writer->append(std::span(buffer).first(got)));
    offset += got;
    if (got < buffer.size()) break;
  }
  OBD_TRY(writer->finish());
  for (const std::string& sentence : writer->warnings()) tool::warn(sentence);
  fmt::print("compress file done.\n");
  return 0;
}

// Calls sink(content) for all of a ZFile.
template <typename Sink>
Result<void> read_all(const Blob& blob, Sink&& sink) {
  std::vector<std::byte> buffer(kCopySize);
  for (uint64_t offset = 0; offset < blob.size();) {
    OBD_TRY(tool::check_interrupt());
    const auto piece = std::span(buffer).first(
        static_cast<size_t>(std::min<uint64_t>(buffer.size(), blob.size() - offset)));
    OBD_TRY(read_exactly(blob, piece, offset));
    OBD_TRY(sink(std::span<const std::byte>(piece), offset));
    offset += piece.size();
  }
  return {};
}

Result<std::unique_ptr<Blob>> open_zfile(FileSystem& fs, const std::string& path) {
  OBD_TRY_ASSIGN(auto blob, open_blob(fs, path, nullptr));
  if (blob->container().compression == Compression::none) {
    return fail(EINVAL, "{}: is no ZFile", path);
  }
  return blob;
}

Result<int> extract(FileSystem& fs, const ZfileArguments& arguments) {
  if (arguments.target.empty()) return fail(EINVAL, "target_file: is missing");
  OBD_TRY_ASSIGN(const auto blob, open_zfile(fs, arguments.source));
  OBD_TRY(refuse_source(fs, arguments, arguments.target));
  fmt::print("decompress file {} as {}\n", arguments.source, arguments.target);
  OBD_TRY_ASSIGN(auto output, OutputFile::create(fs, arguments.target, 0700, arguments.force));
  OBD_TRY(read_all(*blob, [&](std::span<const std::byte> piece, uint64_t offset) {
    return output.file().write_at(piece, offset);
  }));
  OBD_TRY(output.finish());
  fmt::print("decompress file done.\n");
  return 0;
}

Result<int> verify(FileSystem& fs, const ZfileArguments& arguments) {
  const auto look = [&]() -> Result<void> {
    OBD_TRY_ASSIGN(const auto blob, open_zfile(fs, arguments.source));
    if (!blob->container().checksums) {
      return fail(EINVAL, "{}: its blocks have no checksums", arguments.source);
    }
    return read_all(*blob, [](auto, auto) { return Result<void>(); });
  };
  if (const auto looked = look(); !looked) {
    OBD_TRY(tool::check_interrupt());
    fmt::print(stderr, "overlaybd-zfile: {}\n", looked.error().message);
    fmt::print("{} is not a valid zfile blob or checksum can't be found.\n", arguments.source);
    return kFailure;
  }
  fmt::print("{} is a valid zfile blob.\n", arguments.source);
  return 0;
}

int main(int argc, char** argv) {
  CLI::App app("Compresses, extracts and verifies ZFiles", "overlaybd-zfile");
  ZfileArguments arguments;
  app.add_flag("-t", arguments.tar,
               "Wrap it in a tar file; a wrapped one is read with and without");
  CLI::Option* extracts = app.add_flag("-x", arguments.extract, "Extract");
  app.add_flag("--verify", arguments.verify, "Verify every checksum of source_file")
      ->excludes(extracts);
  app.add_flag("-f", arguments.force, "Replace an existing target_file");
  add_compression(app, arguments.compression);
  app.add_option("source_file", arguments.source,
                 "The file to read; with no target_file, the one to write from standard input")
      ->required();
  app.add_option("target_file", arguments.target, "The file to write");
  add_verbose(app);
  app.footer(
      "Examples:\n"
      "  overlaybd-zfile layer.lsmt layer.zfile --algorithm zstd --bs 64\n"
      "  overlaybd-zfile -x layer.zfile layer.lsmt\n"
      "  overlaybd-zfile --verify layer.zfile");
  return run(app, argc, argv, kFailure, [&]() -> Result<int> {
    FileSystem& fs = posix_file_system();
    if (arguments.verify) return verify(fs, arguments);
    return arguments.extract ? extract(fs, arguments) : compress(fs, arguments);
  });
}

}  // namespace
}  // namespace obd::compat

int main(int argc, char** argv) { return obd::compat::main(argc, argv); }
