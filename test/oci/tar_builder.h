// Tar files for tests, made block by block, so that every field can be right or wrong.
//
// Thread-safety: none.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace obd::test {

struct TarMember {
  std::string name = {};
  char type = '0';
  std::string content = {};
  std::string link = {};
  unsigned mode = 0644;
  unsigned uid = 0;
  unsigned gid = 0;
  uint64_t mtime = 1'500'000'000;
  unsigned major = 0;
  unsigned minor = 0;
  std::string magic = std::string("ustar\00000", 8);
};

class TarBuilder {
 public:
  // A header whose size is that of the content, and the content.
  TarBuilder& add(const TarMember& member);
  // A pax header ('x', or 'g' for a global one) with these records.
  TarBuilder& pax(const std::vector<std::pair<std::string, std::string>>& records, char type = 'x');
  // Bytes as they are, filled to whole blocks.
  TarBuilder& raw(std::string_view bytes);

  TarBuilder& file(const std::string& name, const std::string& content) {
    return add({.name = name, .content = content});
  }
  TarBuilder& directory(const std::string& name, unsigned mode = 0755) {
    return add({.name = name, .type = '5', .mode = mode});
  }
  TarBuilder& symlink(const std::string& name, const std::string& target) {
    return add({.name = name, .type = '2', .link = target});
  }
  TarBuilder& hard_link(const std::string& name, const std::string& target) {
    return add({.name = name, .type = '1', .link = target});
  }

  // With the two blocks that end an archive.
  [[nodiscard]] std::string finish() const;
  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// A header block alone, with its checksum.
std::string tar_header(const TarMember& member, uint64_t size);
// Puts the checksum right after a change to a header block.
void fix_checksum(std::string& header);

}  // namespace obd::test
