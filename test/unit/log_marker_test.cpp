#include "core/format/log_marker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "core/base/checksum.h"

namespace obd::lsmt {
namespace {

using EntryBytes = std::array<std::byte, kEntrySize>;

EntryBytes encode(const Marker& marker) {
  EntryBytes bytes;
  bytes.fill(std::byte{0xAA});
  encode_marker(marker, bytes);
  return bytes;
}

EntryBytes entry_bytes(const std::array<int, kEntrySize>& values) {
  EntryBytes bytes{};
  std::transform(values.begin(), values.end(), bytes.begin(),
                 [](int value) { return static_cast<std::byte>(value); });
  return bytes;
}

TEST(LogMarker, CommitHasItsPlaceInTheBits) {
  const auto expected = entry_bytes({0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x03, 0x00,  //
                                     0x78, 0x56, 0x34, 0x12, 0xEF, 0xCD, 0xAB, 0x02});
  EXPECT_EQ(encode({.kind = MarkerKind::commit, .check = 0x12345678, .distance = 0xABCDEF}),
            expected);
}

TEST(LogMarker, SessionHasItsPlaceInTheBits) {
  const auto expected = entry_bytes({0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x03, 0x00,  //
                                     0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0x01});
  EXPECT_EQ(encode({.kind = MarkerKind::session, .hash = 0x01020304050607}), expected);
}

TEST(LogMarker, UpdatesHaveTheirPlaceInTheBits) {
  auto expected = entry_bytes({0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x03, 0x00,  //
                               0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0x05});
  EXPECT_EQ(encode({.kind = MarkerKind::update_begun, .hash = 0x01020304050607}), expected);
  expected[15] = std::byte{0x06};
  EXPECT_EQ(encode({.kind = MarkerKind::update_done, .hash = 0x01020304050607}), expected);
}

TEST(LogMarker, EveryKindComesBack) {
  for (const Marker& marker : {
           Marker{.kind = MarkerKind::session, .hash = (uint64_t{1} << 56) - 1},
           Marker{.kind = MarkerKind::session, .hash = 0},
           Marker{.kind = MarkerKind::commit, .check = 0xFFFFFFFF, .distance = kMaxDistance},
           Marker{.kind = MarkerKind::commit, .check = 0, .distance = 0},
           Marker{.kind = MarkerKind::close, .check = 1, .distance = 2},
           Marker{.kind = MarkerKind::distrust, .check = 3, .distance = 4},
           Marker{.kind = MarkerKind::update_begun, .hash = (uint64_t{1} << 56) - 1},
           Marker{.kind = MarkerKind::update_done, .hash = 5},
       }) {
    EXPECT_EQ(decode_marker(encode(marker)), marker);
  }
}

// What makes the log readable for everybody else.
TEST(LogMarker, ReadersOfTheFormatDropIt) {
  for (const MarkerKind kind :
       {MarkerKind::session, MarkerKind::commit, MarkerKind::close, MarkerKind::distrust,
        MarkerKind::update_begun, MarkerKind::update_done}) {
    const Entry entry =
        decode_entry(encode({.kind = kind, .check = ~0u, .distance = 7, .hash = ~0u}));
    EXPECT_TRUE(entry.is_invalid());
    EXPECT_EQ(entry.length, Sectors());
  }
}

TEST(LogMarker, NothingElseIsAMarker) {
  EntryBytes bytes;
  encode_entry(Entry(), bytes);  // padding
  EXPECT_EQ(decode_marker(bytes), std::nullopt);

  encode_entry({.offset = Sectors(8), .length = Sectors(8), .physical = Sectors(8)}, bytes);
  bytes[15] = std::byte{2};  // overlaybd's tag byte stands where the kind does
  EXPECT_EQ(decode_marker(bytes), std::nullopt);

  const Marker commit{.kind = MarkerKind::commit, .check = 1, .distance = 1};
  for (size_t i = 0; i < 8; ++i) {  // another offset, or a length
    bytes = encode(commit);
    bytes[i] ^= std::byte{0x80};
    EXPECT_EQ(decode_marker(bytes), std::nullopt) << i;
  }
  for (int kind = 0; kind < 256; ++kind) {
    bytes = encode(commit);
    bytes[15] = static_cast<std::byte>(kind);
    EXPECT_EQ(decode_marker(bytes).has_value(), kind >= 1 && kind <= 6) << kind;
  }
}

TEST(LogMarker, CheckCoversKindDistanceAndLog) {
  const std::array<std::byte, 4> covered{std::byte{2}, std::byte{0xEF}, std::byte{0xCD},
                                         std::byte{0xAB}};
  EXPECT_EQ(marker_check(0x1234, MarkerKind::commit, 0xABCDEF), crc32c(0x1234, covered));
  const uint32_t check = marker_check(kLogCrcInit, MarkerKind::commit, 5);
  EXPECT_NE(check, marker_check(kLogCrcInit, MarkerKind::close, 5));
  EXPECT_NE(check, marker_check(kLogCrcInit, MarkerKind::commit, 6));
  EXPECT_NE(check, marker_check(kLogCrcInit, MarkerKind::commit, 5 + (1 << 16)));
  EXPECT_NE(check, marker_check(kLogCrcInit ^ 1, MarkerKind::commit, 5));
}

// An all-zero tail, as a file system may leave one, must not look committed.
TEST(LogMarker, ZerosCarryNoValidCheck) {
  EXPECT_NE(marker_check(kLogCrcInit, MarkerKind::commit, 0), 0u);
  EXPECT_EQ(decode_marker(EntryBytes{}), std::nullopt);
}

// The values are on disk: they must never change.
TEST(LogMarker, HashIsFixed) {
  EXPECT_EQ(marker_hash(""), 0xF29CE484222325u ^ 0xCBu);
  // FNV-1a of "a" is 0xAF63DC4C8601EC8C, of "foobar" 0x85944171F73967E8.
  EXPECT_EQ(marker_hash("a"), 0x63DC4C8601EC8Cu ^ 0xAFu);
  EXPECT_EQ(marker_hash("foobar"), 0x944171F73967E8u ^ 0x85u);
}

TEST(LogMarker, HashTellsBootsApart) {
  const auto one = marker_hash("9e1d2c5a-7f0b-4a11-9c3e-5b8f2f1f0a01");
  const auto other = marker_hash("9e1d2c5a-7f0b-4a11-9c3e-5b8f2f1f0a02");
  EXPECT_NE(one, other);
  EXPECT_LT(one, uint64_t{1} << 56);
  EXPECT_LT(other, uint64_t{1} << 56);
}

}  // namespace
}  // namespace obd::lsmt
