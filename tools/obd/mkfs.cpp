#include "tools/obd/mkfs.h"

#include <cerrno>
#include <string_view>
#include <vector>

#include "core/io/output_file.h"
#include "tools/obd/data_runs.h"
#include "tools/obd/program.h"

namespace obd::tool {
namespace {

std::vector<std::string> options_for(std::string_view fstype) {
  if (fstype == "ext2" || fstype == "ext3" || fstype == "ext4") return {"-q", "-F"};
  if (fstype == "xfs" || fstype == "btrfs" || fstype == "f2fs") return {"-q", "-f"};
  if (fstype == "ntfs") return {"-q", "-F", "-Q"};
  return {};
}

}  // namespace

Result<void> check_fstype(const std::string& fstype) {
  constexpr std::string_view kNameCharacters =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+.";
  if (fstype.empty() || fstype.find_first_not_of(kNameCharacters) != std::string::npos) {
    return fail(EINVAL, "--mkfs: '{}' is no type of file system", fstype);
  }
  return {};
}

Result<std::string> find_mkfs(const std::string& fstype) {
  OBD_TRY(check_fstype(fstype));
  auto program = find_program("mkfs." + fstype);
  if (!program && program.error().code == ENOENT) {
    return fail(ENOENT, "--mkfs: {}: install the tools of that file system",
                program.error().message);
  }
  return program;
}

Result<void> run_mkfs(const std::string& program, const std::string& fstype,
                      const std::string& file, const std::vector<std::string>& extra) {
  std::vector<std::string> words = {program};
  for (const std::string& option : options_for(fstype)) words.push_back(option);
  words.insert(words.end(), extra.begin(), extra.end());
  words.push_back(file);
  OBD_TRY_ASSIGN(const int status, run_program(words));
  if (status != 0) {
    return fail(EIO, "{} failed with exit status {}: its own message is above", program, status);
  }
  return {};
}

Result<void> fill_with_file_system(FileSystem& fs, const std::string& program,
                                   const std::string& fstype, const ImageConfig& config,
                                   const std::vector<std::string>& extra) {
  OBD_TRY_ASSIGN(const auto image, Image::open(fs, config, {.access = Access::read_write}));
  // Never finished, so it goes away with this function.
  OBD_TRY_ASSIGN(auto scratch, OutputFile::create(fs, config.upper->data, 0600, true));
  if (auto sized = scratch.file().truncate(image->size()); !sized) {
    return fail(sized.error().code,
                "--mkfs: needs a sparse temporary file as large as the disk, and that failed: {}",
                sized.error().message);
  }
  OBD_TRY(run_mkfs(program, fstype, scratch.file().path(), extra));
  OBD_TRY_ASSIGN(const auto runs, data_runs(scratch.file()));
  OBD_TRY(copy_runs(scratch.file(), runs, "writing " + fstype,
                    [&](uint64_t offset, std::span<const std::byte> data) {
                      return image->write(data, offset);
                    }));
  OBD_TRY(image->flush());
  return image->close();
}

}  // namespace obd::tool
