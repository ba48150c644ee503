// What the engine does with files again and again, on any FileSystem.

#include <algorithm>
#include <cerrno>

#include "core/io/file.h"
#include "core/io/output_file.h"

namespace obd {
namespace {

constexpr size_t kReadStep = size_t{64} * 1024;

}  // namespace

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<void> read_exactly(const File& file, std::span<std::byte> out, uint64_t offset) {
  OBD_TRY_ASSIGN(const size_t count, file.read_at(out, offset));
  if (count < out.size()) {
    return fail(EIO, "{}: ends early: {} bytes at offset {} are needed, but only {} are there",
                file.path(), out.size(), offset, count);
  }
  return {};
}

Result<std::string> read_whole(FileSystem& fs, const std::string& path, uint64_t max_bytes) {
  OBD_TRY_ASSIGN(const auto file, fs.open(path, Access::read_only));
  // Until a read comes back short: files of /proc have content, but report size 0.
  std::string content;
  while (content.size() <= max_bytes) {
    const size_t begin = content.size();
    content.resize(begin + kReadStep);
    const auto out = std::as_writable_bytes(std::span(content)).subspan(begin);
    OBD_TRY_ASSIGN(const size_t count, file->read_at(out, begin));
    content.resize(begin + count);
    if (count < kReadStep && content.size() <= max_bytes) return content;
  }
  return fail(EFBIG, "{}: is longer than {} bytes", path, max_bytes);
}

Result<void> replace_file(FileSystem& fs, const std::string& path, std::string_view content) {
  OBD_TRY_ASSIGN(const bool replacing, fs.exists(path));
  std::optional<FileInfo> model;
  if (replacing) {
    OBD_TRY_ASSIGN(const auto old, fs.open(path, Access::read_only));
    OBD_TRY_ASSIGN(model, old->info());
  }
  // Nobody may read through the temporary name what the old file kept to itself.
  OBD_TRY_ASSIGN(OutputFile output, OutputFile::create(fs, path, model ? 0600 : 0644, true));
  if (model) OBD_TRY(output.file().set_owner_and_mode(model->owner, model->group, model->mode));
  OBD_TRY(output.file().write_at(std::as_bytes(std::span(content)), 0));
  return output.finish();
}

}  // namespace obd
