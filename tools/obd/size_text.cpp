#include "tools/obd/size_text.h"

#include <cctype>
#include <cerrno>
#include <limits>
#include <optional>

#include "core/base/units.h"

namespace obd::tool {
namespace {

constexpr std::string_view kSuffixes = "KMGTPE";

__extension__ using Wide = unsigned __int128;

// The number of bits to shift by for what stands behind the digits; nullopt for no suffix of ours.
std::optional<unsigned> shift_of(std::string_view suffix) {
  if (suffix.empty()) return 0U;
  const char letter = static_cast<char>(std::toupper(static_cast<unsigned char>(suffix.front())));
  const size_t place = kSuffixes.find(letter);
  if (place == std::string_view::npos) return std::nullopt;
  suffix.remove_prefix(1);
  if (!suffix.empty() && suffix != "iB") return std::nullopt;
  return static_cast<unsigned>(10 * (place + 1));
}

// "5G" for what people write instead: "5GB", "5gib", "5 G".
std::optional<std::string> without_unit(std::string_view text) {
  const size_t digits = text.find_first_not_of("0123456789.");
  if (digits == 0 || digits == std::string_view::npos) return std::nullopt;
  std::string unit;
  for (const char c : text.substr(digits)) {
    if (c != ' ') unit += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  if (unit.ends_with('B')) unit.pop_back();
  if (unit.ends_with('I')) unit.pop_back();
  if (unit.size() != 1 || !kSuffixes.contains(unit.front())) return std::nullopt;
  return std::string(text.substr(0, digits)) + unit;
}

}  // namespace

Result<uint64_t> parse_size(std::string_view text) {
  const auto bad = [&] {
    if (const auto shorter = without_unit(text)) {
      return fail(EINVAL, "'{}' is not a size: write {}, which counts in powers of 1024", text,
                  *shorter);
    }
    return fail(EINVAL,
                "'{}' is not a size: write digits and perhaps one of K, M, G, T, P, E, as in 10G, "
                "1.5T or 4096",
                text);
  };
  // More digits behind the point do not fit into the arithmetic below.
  constexpr size_t kMaxFractionDigits = 18;
  Wide whole = 0;
  Wide fraction = 0;
  Wide scale = 1;
  size_t digits = 0;
  size_t at = 0;
  const auto is_digit = [&] { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
  const auto too_large = [&] {
    return fail(EINVAL, "the size {} does not fit into 64 bits", text);
  };
  for (; is_digit(); ++at, ++digits) {
    whole = whole * 10 + static_cast<unsigned>(text[at] - '0');
    if (whole > std::numeric_limits<uint64_t>::max()) return too_large();
  }
  if (at < text.size() && text[at] == '.') {
    ++at;
    const size_t first = at;
    for (; is_digit(); ++at, ++digits) {
      if (at - first == kMaxFractionDigits) return bad();
      fraction = fraction * 10 + static_cast<unsigned>(text[at] - '0');
      scale *= 10;
    }
    if (at == first) return bad();
  }
  if (digits == 0) return bad();
  const std::optional<unsigned> shift = shift_of(text.substr(at));
  if (!shift) return bad();

  const Wide unit = Wide{1} << *shift;
  const Wide scaled_fraction = fraction * unit;  // below 10^18 * 2^60, which is below 2^120
  if (scale != 1 && unit == 1) {
    return fail(EINVAL, "the size {} is not a whole number of bytes", text);
  }
  // At least what was asked for: 1.1G is no whole number of bytes.
  const Wide bytes = whole * unit + (scaled_fraction + scale - 1) / scale;
  if (bytes > std::numeric_limits<uint64_t>::max()) return too_large();
  return static_cast<uint64_t>(bytes);
}

Result<uint64_t> parse_disk_size(std::string_view text) {
  OBD_TRY_ASSIGN(uint64_t bytes, parse_size(text));
  // Few fractions are a whole number of sectors; who writes one does not count bytes.
  if (text.contains('.') && bytes <= kMaxDiskSize) bytes = align_up(bytes, kSectorSize);
  if (bytes == 0) return fail(EINVAL, "a disk cannot have size 0");
  if (bytes > kMaxDiskSize) {
    return fail(EINVAL, "the size {} is above the largest that a disk can have, {} bytes", text,
                kMaxDiskSize);
  }
  if (!is_aligned(bytes, kSectorSize)) {
    return fail(EINVAL, "the size {} is {} bytes, and a disk's size is a multiple of {}", text,
                bytes, kSectorSize);
  }
  return bytes;
}

std::string human_size(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  size_t place = 0;
  uint64_t unit = 1024;
  while (place + 1 < kSuffixes.size() && bytes / unit >= 1024) {
    unit *= 1024;
    ++place;
  }
  const auto tenths_in = [bytes](uint64_t u) {
    return static_cast<uint64_t>((Wide{bytes} * 10 + u / 2) / u);
  };
  uint64_t tenths = tenths_in(unit);
  if (tenths >= 10240 && place + 1 < kSuffixes.size()) {  // 1023.96 KiB is 1 MiB
    unit *= 1024;
    ++place;
    tenths = tenths_in(unit);
  }
  if (tenths % 10 == 0) return fmt::format("{} {}iB", tenths / 10, kSuffixes[place]);
  return fmt::format("{}.{} {}iB", tenths / 10, tenths % 10, kSuffixes[place]);
}

std::string exact_size(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} bytes", bytes);
  return fmt::format("{} ({} bytes)", human_size(bytes), bytes);
}

}  // namespace obd::tool
