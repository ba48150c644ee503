#include "tools/oci/reproducible.h"

#include <cerrno>
#include <cstdlib>

#include "tools/oci/digest.h"
#include "tools/oci/tar_header.h"

namespace obd::oci {

Result<std::optional<int64_t>> source_date_epoch() {
  const char* text = std::getenv("SOURCE_DATE_EPOCH");
  if (text == nullptr || *text == '\0') return std::optional<int64_t>();
  const auto seconds = parse_number(text, 10);
  constexpr uint64_t kLast = 0x37FFFFFFF;  // of ext4
  if (!seconds || *seconds == 0 || *seconds > kLast) {
    return fail(EINVAL, "SOURCE_DATE_EPOCH: '{}' is no number of seconds from 1 to {}", shown(text),
                kLast);
  }
  return std::optional(static_cast<int64_t>(*seconds));
}

Uuid uuid_from_text(const std::string& text) {
  const std::string digits = digest_of(text).substr(std::string_view("sha256:").size());
  const auto uuid =
      Uuid::parse(fmt::format("{}-{}-{}-{}-{}", digits.substr(0, 8), digits.substr(8, 4),
                              digits.substr(12, 4), digits.substr(16, 4), digits.substr(20, 12)));
  return uuid.value_or(Uuid());
}

}  // namespace obd::oci
