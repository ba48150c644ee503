#include "test/oci/ext4_disk.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "tools/oci/byte_stream.h"
#include "tools/oci/digest.h"

namespace obd::test {
namespace {

// A file on the host with these bytes, gone with its owner.
class HostFile {
 public:
  HostFile() : path_((std::filesystem::temp_directory_path() / "obd-oci-XXXXXX").string()) {
    const int fd = ::mkstemp(path_.data());
    EXPECT_GE(fd, 0) << path_;
    ::close(fd);
  }
  ~HostFile() { std::filesystem::remove(path_); }
  HostFile(const HostFile&) = delete;
  HostFile& operator=(const HostFile&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::pair<int, std::string> run(const std::string& command) {
  std::string said;
  FILE* pipe = ::popen(("PATH=$PATH:/usr/sbin:/sbin; " + command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return {-1, "popen failed"};
  std::array<char, 4096> buffer;
  for (size_t got = 0; (got = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    said.append(buffer.data(), got);
  }
  const int status = ::pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, said};
}

std::string host_bytes(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

const std::string& template_for(const std::string& options) {
  static std::map<std::string, std::string> made;
  const auto found = made.find(options);
  if (found != made.end()) return found->second;
  const HostFile file;
  std::filesystem::resize_file(file.path(), Ext4Disk::kSize);
  const auto [status, said] = run("mkfs.ext4 -q -F -b 4096 -N 2048 " + options + " " + file.path());
  EXPECT_EQ(status, 0) << said;
  return made[options] = host_bytes(file.path());
}

}  // namespace

Ext4Disk::Ext4Disk(const std::string& mkfs_options) {
  const std::string& bytes = template_for(mkfs_options);
  file_ = fs_.create("/disk", 0644).value();
  EXPECT_TRUE(file_->write_at(std::as_bytes(std::span(bytes)), 0).has_value());
  disk_ = std::make_unique<oci::FileDisk>(*file_, bytes.size());
  const auto target = open();
  const auto found = target->lookup(oci::Ext4::kRoot, "lost+found").value();
  EXPECT_TRUE(target->remove(oci::Ext4::kRoot, "lost+found", found.value()).has_value());
  EXPECT_TRUE(target->close().has_value());
}

std::unique_ptr<oci::Ext4> Ext4Disk::open() {
  auto opened = oci::Ext4::open(*disk_, {.name = "/disk", .now = 1'600'000'000});
  EXPECT_TRUE(opened.has_value()) << opened.error().message;
  return std::move(*opened);
}

Result<oci::AppliedLayer> Ext4Disk::apply(const std::string& tar) {
  MemoryFileSystem host;
  OBD_TRY_ASSIGN(auto file, host.create("/layer.tar", 0644));
  OBD_TRY(file->write_at(std::as_bytes(std::span(tar)), 0));
  OBD_TRY_ASSIGN(const auto stream, oci::layer_stream(std::move(file), {}));
  const auto target = open();
  oci::TarReader reader(*stream);
  OBD_TRY_ASSIGN(auto applied, oci::apply_layer(*target, reader));
  OBD_TRY(target->close());
  return applied;
}

void Ext4Disk::apply_right(const std::string& tar) {
  auto applied = apply(tar);
  ASSERT_TRUE(applied.has_value()) << applied.error().message;
  warnings = applied->warnings;
  EXPECT_EQ(complaints(), "");
}

std::string Ext4Disk::bytes() {
  std::string all(disk_->size(), '\0');
  EXPECT_TRUE(disk_->read(std::as_writable_bytes(std::span(all)), 0).has_value());
  return all;
}

std::string Ext4Disk::complaints() {
  const HostFile file;
  std::ofstream(file.path(), std::ios::binary) << bytes();
  const auto [status, said] = run("e2fsck -fn " + file.path());
  return status == 0 ? "" : said;
}

namespace {

std::string xattrs_of(oci::Ext4& fs, oci::InodeNumber inode) {
  std::string text;
  const std::vector<oci::Xattr> xattrs = fs.xattrs(inode).value();
  for (const oci::Xattr& xattr : xattrs) {
    text += fmt::format(" {}=", xattr.name);
    for (const char c : xattr.value) {
      text += c >= ' ' && c <= '~' ? std::string(1, c)
                                   : fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return text;
}

void list_into(oci::Ext4& fs, oci::InodeNumber directory, const std::string& path,
               std::vector<std::string>& lines) {
  auto entries = fs.list(directory).value();
  std::ranges::sort(entries, {}, &oci::DirectoryEntry::name);
  for (const oci::DirectoryEntry& entry : entries) {
    const auto info = fs.info(entry.inode).value();
    const std::string child = path + "/" + entry.name;
    std::string line =
        fmt::format("{} {:o} {}:{} {} {}.{:09}", child, info.mode, info.uid, info.gid, info.links,
                    info.mtime.seconds, info.mtime.nanoseconds);
    if (S_ISREG(info.mode)) line += fmt::format(" {} bytes", info.size);
    if (S_ISLNK(info.mode)) line += " -> " + fs.read_link(entry.inode).value();
    if (S_ISCHR(info.mode) || S_ISBLK(info.mode)) {
      line += fmt::format(" device {}:{}", info.major, info.minor);
    }
    lines.push_back(line + xattrs_of(fs, entry.inode));
    if (S_ISDIR(info.mode)) list_into(fs, entry.inode, child, lines);
  }
}

}  // namespace

std::vector<std::string> listing(oci::Ext4& fs) {
  std::vector<std::string> lines;
  list_into(fs, oci::Ext4::kRoot, "", lines);
  return lines;
}

std::string content_at(Ext4Disk& disk, const std::string& path) {
  const auto fs = disk.open();
  oci::InodeNumber inode = oci::Ext4::kRoot;
  std::istringstream names(path);
  for (std::string name; std::getline(names, name, '/');) {
    const auto found = fs->lookup(inode, name).value();
    if (!found) return "?";
    inode = *found;
  }
  return fs->read_content(inode).value();
}

}  // namespace obd::test
