#include "test/oci/tar_builder.h"

#include <fmt/format.h>

namespace obd::test {
namespace {

constexpr size_t kBlock = 512;

void put(std::string& header, size_t offset, size_t room, std::string_view text) {
  header.replace(offset, std::min(room, text.size()), text.substr(0, room));
}

}  // namespace

void fix_checksum(std::string& header) {
  uint64_t sum = 8 * ' ';
  for (size_t i = 0; i < kBlock; ++i) {
    if (i < 148 || i >= 156) sum += static_cast<unsigned char>(header[i]);
  }
  header.replace(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
}

std::string tar_header(const TarMember& member, uint64_t size) {
  std::string header(kBlock, '\0');
  put(header, 0, 100, member.name);
  put(header, 100, 8, fmt::format("{:07o}", member.mode));
  put(header, 108, 8, fmt::format("{:07o}", member.uid));
  put(header, 116, 8, fmt::format("{:07o}", member.gid));
  put(header, 124, 12, fmt::format("{:011o}", size));
  put(header, 136, 12, fmt::format("{:011o}", member.mtime));
  header[156] = member.type;
  put(header, 157, 100, member.link);
  put(header, 257, 8, member.magic);
  if (!member.magic.empty()) {
    put(header, 329, 8, fmt::format("{:07o}", member.major));
    put(header, 337, 8, fmt::format("{:07o}", member.minor));
  }
  fix_checksum(header);
  return header;
}

TarBuilder& TarBuilder::raw(std::string_view bytes) {
  bytes_ += bytes;
  bytes_.append((kBlock - bytes_.size() % kBlock) % kBlock, '\0');
  return *this;
}

TarBuilder& TarBuilder::add(const TarMember& member) {
  bytes_ += tar_header(member, member.content.size());
  return raw(member.content);
}

TarBuilder& TarBuilder::pax(const std::vector<std::pair<std::string, std::string>>& records,
                            char type) {
  std::string content;
  for (const auto& [key, value] : records) {
    const size_t rest = key.size() + value.size() + 3;
    size_t length = rest + 1;
    while (rest + std::to_string(length).size() != length) {
      length = rest + std::to_string(length).size();
    }
    content += fmt::format("{} {}={}\n", length, key, value);
  }
  return add({.name = "pax", .type = type, .content = content});
}

std::string TarBuilder::finish() const { return bytes_ + std::string(2 * kBlock, '\0'); }

}  // namespace obd::test
