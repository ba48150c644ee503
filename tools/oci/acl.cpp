#include "tools/oci/acl.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <vector>

#include "core/format/little_endian.h"
#include "tools/oci/tar_header.h"

namespace obd::oci {
namespace {

constexpr uint32_t kVersion = 2;
constexpr size_t kHeaderSize = 4;
constexpr size_t kEntrySize = 8;
constexpr size_t kMostEntries = 8000;  // what 64 KiB hold
constexpr uint32_t kNoId = 0xFFFFFFFF;

enum Tag : uint16_t {
  kUserObject = 0x01,
  kUser = 0x02,
  kGroupObject = 0x04,
  kGroup = 0x08,
  kMask = 0x10,
  kOther = 0x20,
};

struct Entry {
  uint16_t tag = 0;
  uint16_t permissions = 0;
  uint32_t id = kNoId;
};

bool is_named(uint16_t tag) { return tag == kUser || tag == kGroup; }

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::string_view without_comment(std::string_view line) { return line.substr(0, line.find('#')); }

std::optional<uint16_t> parse_permissions(std::string_view text) {
  uint16_t bits = 0;
  for (const char c : text) {
    if (c == 'r') {
      bits |= 4;
    } else if (c == 'w') {
      bits |= 2;
    } else if (c == 'x') {
      bits |= 1;
    } else if (c != '-') {
      return std::nullopt;
    }
  }
  return text.empty() ? std::nullopt : std::optional(bits);
}

Result<Entry> parse_entry(std::string_view text) {
  const auto parts = split(text, ':');
  const auto wrong = [&](std::string_view why) {
    return fail(EINVAL, "the ACL entry '{}' {}", shown(text), why);
  };
  // "mask:rwx" and "other:rwx" come without an empty name, too.
  const bool short_form = parts.size() == 2;
  if (parts.size() < 2 || parts.size() > 4) return wrong("is malformed");
  const std::string_view kind = parts[0];
  const std::string_view name = short_form ? "" : parts[1];
  const auto permissions = parse_permissions(short_form ? parts[1] : parts[2]);
  if (!permissions) return wrong("has no permissions");
  Entry entry{.permissions = *permissions};
  if (kind == "user" || kind == "u") {
    entry.tag = name.empty() ? kUserObject : kUser;
  } else if (kind == "group" || kind == "g") {
    entry.tag = name.empty() ? kGroupObject : kGroup;
  } else if (kind == "mask" || kind == "m") {
    entry.tag = kMask;
  } else if (kind == "other" || kind == "o") {
    entry.tag = kOther;
  } else {
    return wrong("is of an unknown kind");
  }
  if (is_named(entry.tag)) {
    const auto id = parse_number(parts.size() == 4 ? parts[3] : name, 10);
    if (!id) {
      return wrong("names somebody without a number; make the tar file with --numeric-owner");
    }
    if (*id >= kNoId) return wrong("has a number that nobody can have");
    entry.id = static_cast<uint32_t>(*id);
  } else if (!name.empty()) {
    return wrong("names somebody, and this kind does not");
  }
  return entry;
}

// Checks as the kernel does what belongs together.
Result<std::string> encode(std::vector<Entry> entries) {
  std::ranges::sort(entries, [](const Entry& a, const Entry& b) {
    return std::pair(a.tag, a.id) < std::pair(b.tag, b.id);
  });
  const auto count = [&](uint16_t tag) {
    return std::ranges::count_if(entries, [&](const Entry& entry) { return entry.tag == tag; });
  };
  for (const uint16_t tag : {kUserObject, kGroupObject, kOther}) {
    if (count(tag) != 1) {
      return fail(EINVAL, "an ACL has one entry each for the owner, the group and all others");
    }
  }
  const bool named = count(kUser) + count(kGroup) > 0;
  if (count(kMask) > 1 || (named && count(kMask) == 0)) {
    return fail(EINVAL, "an ACL that names somebody has one mask");
  }
  for (size_t i = 1; i < entries.size(); ++i) {
    if (entries[i].tag == entries[i - 1].tag && entries[i].id == entries[i - 1].id) {
      return fail(EINVAL, "an ACL names {} twice", entries[i].id);
    }
  }
  std::string out(kHeaderSize + entries.size() * kEntrySize, '\0');
  const auto bytes = std::as_writable_bytes(std::span(out));
  store_le<uint32_t>(bytes.subspan(0).first<4>(), kVersion);
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto at = bytes.subspan(kHeaderSize + i * kEntrySize, kEntrySize);
    store_le<uint16_t>(at.subspan<0, 2>(), entries[i].tag);
    store_le<uint16_t>(at.subspan<2, 2>(), entries[i].permissions);
    store_le<uint32_t>(at.subspan<4, 4>(), entries[i].id);
  }
  return out;
}

std::vector<Entry> entries_of(std::string_view acl) {
  const auto bytes = std::as_bytes(std::span(acl));
  std::vector<Entry> entries;
  for (size_t i = kHeaderSize; i + kEntrySize <= bytes.size(); i += kEntrySize) {
    const auto at = bytes.subspan(i, kEntrySize);
    Entry entry{load_le<uint16_t>(at.subspan<0, 2>()), load_le<uint16_t>(at.subspan<2, 2>()),
                load_le<uint32_t>(at.subspan<4, 4>())};
    if (!is_named(entry.tag)) entry.id = kNoId;
    entries.push_back(entry);
  }
  return entries;
}

}  // namespace

Result<std::string> acl_from_text(std::string_view text) {
  std::vector<Entry> entries;
  for (const std::string_view line : split(text, '\n')) {
    for (std::string_view part : split(without_comment(line), ',')) {
      while (!part.empty() && (part.front() == ' ' || part.front() == '\t')) part.remove_prefix(1);
      while (!part.empty() && (part.back() == ' ' || part.back() == '\t')) part.remove_suffix(1);
      if (part.empty()) continue;
      if (entries.size() == kMostEntries) {
        return fail(EINVAL, "an ACL has more than {} entries", kMostEntries);
      }
      OBD_TRY_ASSIGN(const Entry entry, parse_entry(part));
      entries.push_back(entry);
    }
  }
  return encode(std::move(entries));
}

Result<std::string> normal_acl(std::string_view bytes) {
  if (bytes.size() < kHeaderSize || (bytes.size() - kHeaderSize) % kEntrySize != 0 ||
      bytes.size() > kHeaderSize + kMostEntries * kEntrySize) {
    return fail(EINVAL, "an ACL has {} bytes", bytes.size());
  }
  const auto version = load_le<uint32_t>(std::as_bytes(std::span(bytes)).subspan(0).first<4>());
  if (version != kVersion)
    return fail(EINVAL, "an ACL is of version {}, not {}", version, kVersion);
  std::vector<Entry> entries = entries_of(bytes);
  for (const Entry& entry : entries) {
    constexpr std::array<uint16_t, 6> kTags = {kUserObject, kUser, kGroupObject,
                                               kGroup,      kMask, kOther};
    if (std::ranges::find(kTags, entry.tag) == kTags.end() || entry.permissions > 7) {
      return fail(EINVAL, "an ACL has an entry of kind {:#x} with the permissions {:#o}", entry.tag,
                  entry.permissions);
    }
  }
  return encode(std::move(entries));
}

uint32_t mode_of_acl(std::string_view normal) {
  uint32_t mode = 0;
  for (const Entry& entry : entries_of(normal)) {
    const uint32_t bits = entry.permissions;
    if (entry.tag == kUserObject) mode |= bits << 6;
    // The mask comes after the group, and counts in its place.
    if (entry.tag == kGroupObject || entry.tag == kMask) mode = (mode & ~070U) | bits << 3;
    if (entry.tag == kOther) mode |= bits;
  }
  return mode;
}

bool is_minimal_acl(std::string_view normal) { return entries_of(normal).size() == 3; }

}  // namespace obd::oci
