// A layer that is applied, twice on top of itself, leaves a file system in which all can be read,
// each file has as many names as it says, and nothing in use is counted as free. One that is
// refused is refused with a sentence.

#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <vector>

#include "test/fuzz/fuzz.h"
#include "tools/oci/layer_applier.h"

namespace {

using namespace obd;

// An empty ext4, made once by mkfs.ext4.
const std::string& empty_ext4() {
  static const std::string bytes = [] {
    char name[] = "/tmp/obd-fuzz-XXXXXX";
    const int fd = ::mkstemp(name);
    fuzz::require(fd >= 0, "the host takes a file");
    const std::string command = fmt::format(
        "PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q -F -b 4096 -N 256 -O ^has_journal {} 4M", name);
    fuzz::require(std::system(command.c_str()) == 0, "mkfs.ext4 is there");
    const auto text = read_whole(posix_file_system(), name, size_t{16} << 20);
    std::remove(name);
    return *text;
  }();
  return bytes;
}

using Counts = std::map<oci::InodeNumber, uint32_t>;

void walk(oci::Ext4& fs, oci::InodeNumber directory, Counts& names) {
  const auto entries = fs.list(directory);
  fuzz::require(entries.has_value(), "a directory can be read");
  for (const oci::DirectoryEntry& entry : *entries) {
    const auto info = fs.info(entry.inode);
    fuzz::require(info.has_value(), "a name leads to an inode in use");
    fuzz::require(fs.xattrs(entry.inode).has_value(), "attributes can be read");
    ++names[entry.inode];
    if (S_ISLNK(info->mode)) fuzz::require(fs.read_link(entry.inode).has_value(), "links");
    if (S_ISREG(info->mode) && info->size <= 65536) {
      fuzz::require(fs.read_content(entry.inode).has_value(), "content can be read");
    }
    if (!S_ISDIR(info->mode)) continue;
    ++names[entry.inode];  // its own "."
    ++names[directory];    // its ".."
    walk(fs, entry.inode, names);
  }
}

void check(oci::Disk& disk) {
  const auto fs = oci::Ext4::open(disk, {.name = "/disk"});
  fuzz::require(fs.has_value(), "the file system opens again");
  Counts names;
  names[oci::Ext4::kRoot] = 2;
  walk(**fs, oci::Ext4::kRoot, names);
  for (const auto& [inode, count] : names) {
    const auto info = (*fs)->info(inode);
    fuzz::require(info && (info->links == count || (S_ISDIR(info->mode) && info->links == 1)),
                  "an inode has as many names as it says");
  }
}

bool apply(FileSystem& host, oci::Disk& disk) {
  const auto fs = oci::Ext4::open(disk, {.name = "/disk", .now = 1'600'000'000});
  fuzz::require(fs.has_value(), "the file system opens");
  const auto stream = oci::open_layer_stream(host, "/layer", {});
  if (!stream) {
    fuzz::require_sentence(stream.error(), "/layer");
    return false;
  }
  oci::TarReader reader(**stream);
  const auto applied = oci::apply_layer(**fs, reader);
  if (!applied) {
    fuzz::require_sentence(applied.error(), "/layer");
    return false;
  }
  fuzz::require((*fs)->close().has_value(), "what was applied can be written");
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Compressed, a few bytes could keep it busy for long; the target layer_tar is for these.
  if (size < 512) return 0;
  test::MemoryFileSystem fs;
  fuzz::put_file(fs, "/layer", fuzz::as_bytes(data, size));
  const std::string& start = empty_ext4();
  fuzz::put_file(fs, "/disk", std::as_bytes(std::span(start)));
  const auto file = fs.open("/disk", Access::read_write);
  oci::FileDisk disk(**file, start.size());
  for (int i = 0; i < 2; ++i) {
    if (!apply(fs, disk)) return 0;
    check(disk);
  }
  return 0;
}
