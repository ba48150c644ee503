#include "core/format/foreign.h"

#include <cstring>
#include <string_view>
#include <utility>

namespace obd {

const char* foreign_format(std::span<const std::byte> start) {
  constexpr std::pair<std::string_view, const char*> kFormats[] = {
      {std::string_view("QFI\xfb", 4), "a qcow2 image"},
      {std::string_view("KDMV", 4), "a VMDK image"},
      {std::string_view("vhdxfile", 8), "a VHDX image"},
  };
  for (const auto& [magic, name] : kFormats) {
    if (start.size() >= magic.size() &&
        std::memcmp(start.data(), magic.data(), magic.size()) == 0) {
      return name;
    }
  }
  return nullptr;
}

}  // namespace obd
