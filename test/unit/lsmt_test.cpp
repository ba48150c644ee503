#include "core/format/lsmt.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <limits>

namespace obd::lsmt {
namespace {

using HeaderBytes = std::array<std::byte, kHeaderSize>;
using EntryBytes = std::array<std::byte, kEntrySize>;

void put(HeaderBytes& bytes, size_t at, std::initializer_list<int> values) {
  for (const int value : values) bytes[at++] = static_cast<std::byte>(value);
}

void put(HeaderBytes& bytes, size_t at, std::string_view text) {
  std::memcpy(bytes.data() + at, text.data(), text.size());
}

EntryBytes entry_bytes(const std::array<int, kEntrySize>& values) {
  EntryBytes bytes{};
  std::transform(values.begin(), values.end(), bytes.begin(),
                 [](int value) { return static_cast<std::byte>(value); });
  return bytes;
}

// The header of an append index file as overlaybd writes it, laid down by hand.
HeaderBytes upstream_index_header() {
  HeaderBytes bytes{};
  put(bytes, 0, {0x4C, 0x53, 0x4D, 0x54, 0x00, 0x01, 0x02, 0x00});
  put(bytes, 8, {0x65, 0x7E, 0x63, 0xD2, 0x94, 0x44, 0x08, 0x4C});
  put(bytes, 16, {0xA2, 0xD2, 0xC8, 0xEC, 0x4F, 0xCF, 0xAE, 0x8A});
  put(bytes, 24, {0x86, 0x01, 0, 0});
  put(bytes, 28, {0x01, 0, 0, 0});
  put(bytes, 32, {0, 0x10, 0, 0, 0, 0, 0, 0});
  put(bytes, 48, {0, 0, 0, 0x01, 0, 0, 0, 0});
  put(bytes, 56, "78C46BBA-0C71-4395-AA6E-FAEEB32906C9");
  put(bytes, 93, "82943379-5481-4DDE-ABC5-3CA839D48517");
  put(bytes, 132, {1, 1});
  return bytes;
}

Header index_header() {
  Header header;
  header.flags = kFlagHeader;
  header.index_offset = 4096;
  header.virtual_size = 16 << 20;
  header.uuid = Uuid::parse("78C46BBA-0C71-4395-AA6E-FAEEB32906C9").value();
  header.parent_uuid = Uuid::parse("82943379-5481-4DDE-ABC5-3CA839D48517").value();
  return header;
}

TEST(LsmtHeader, EncodesTheBytesThatOverlaybdWrites) {
  EXPECT_EQ(encode_header(index_header()), upstream_index_header());
}

TEST(LsmtHeader, DecodesTheBytesThatOverlaybdWrites) {
  const auto header = decode_header(upstream_index_header(), "x");
  ASSERT_TRUE(header);
  EXPECT_TRUE(header->is_header());
  EXPECT_FALSE(header->is_data());
  EXPECT_FALSE(header->is_sealed());
  EXPECT_FALSE(header->is_sparse());
  EXPECT_EQ(header->unknown_flags(), 0u);
  EXPECT_EQ(header->index_offset, 4096u);
  EXPECT_EQ(header->index_size, 0u);
  EXPECT_EQ(header->virtual_size, uint64_t{16} << 20);
  EXPECT_EQ(header->uuid.text(), "78C46BBA-0C71-4395-AA6E-FAEEB32906C9");
  EXPECT_EQ(header->parent_uuid.text(), "82943379-5481-4DDE-ABC5-3CA839D48517");
  EXPECT_EQ(header->user_tag, "");
}

TEST(LsmtHeader, LogMarkLiesBehindOverlaybdsFields) {
  Header header = index_header();
  header.has_log = true;
  HeaderBytes expected = upstream_index_header();
  put(expected, 504, "OBD-LOG1");
  EXPECT_EQ(encode_header(header), expected);
  EXPECT_TRUE(decode_header(expected, "x")->has_log);
  EXPECT_FALSE(decode_header(upstream_index_header(), "x")->has_log);
}

TEST(LsmtHeader, EveryFieldComesBack) {
  Header header = index_header();
  header.flags = kFlagData | kFlagSealed | kFlagSparse | 1u << 31;
  header.index_offset = 0xFEDCBA9876543210;
  header.index_size = std::numeric_limits<uint64_t>::max();
  header.virtual_size = kMaxDiskSize;
  header.user_tag = std::string(kMaxTagSize, 't');
  const auto decoded = decode_header(encode_header(header), "x");
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->flags, header.flags);
  EXPECT_EQ(decoded->unknown_flags(), 1u << 31);
  EXPECT_EQ(decoded->index_offset, header.index_offset);
  EXPECT_EQ(decoded->index_size, header.index_size);
  EXPECT_EQ(decoded->virtual_size, header.virtual_size);
  EXPECT_EQ(decoded->uuid, header.uuid);
  EXPECT_EQ(decoded->parent_uuid, header.parent_uuid);
  EXPECT_EQ(decoded->user_tag, header.user_tag);
}

TEST(LsmtHeader, FieldsStandAtTheirOffsets) {
  Header header;
  header.flags = 0x06;
  header.index_offset = 0x0807060504030201;
  header.index_size = 0x1817161514131211;
  header.virtual_size = 0x0000605040302000;
  header.user_tag = "hello";
  const HeaderBytes bytes = encode_header(header);
  HeaderBytes expected = upstream_index_header();
  put(expected, 28, {0x06});
  put(expected, 32, {1, 2, 3, 4, 5, 6, 7, 8});
  put(expected, 40, {0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18});
  put(expected, 48, {0x00, 0x20, 0x30, 0x40, 0x50, 0x60, 0, 0});
  put(expected, 56, "00000000-0000-0000-0000-000000000000");
  put(expected, 93, "00000000-0000-0000-0000-000000000000");
  put(expected, 134, "hello");
  EXPECT_EQ(bytes, expected);
}

TEST(LsmtHeader, ATagThatIsTooLongDoesNotReachThePadding) {
  Header header = index_header();
  header.user_tag = std::string(kMaxTagSize + 50, 't');
  const HeaderBytes bytes = encode_header(header);
  EXPECT_EQ(bytes[389], std::byte{'t'});
  EXPECT_TRUE(std::all_of(bytes.begin() + 390, bytes.end(),
                          [](std::byte byte) { return byte == std::byte{0}; }));
}

TEST(LsmtHeader, EveryMagicByteCounts) {
  for (size_t i = 0; i < 24; ++i) {
    HeaderBytes bytes = upstream_index_header();
    bytes[i] ^= std::byte{0x40};
    EXPECT_FALSE(has_magic(bytes));
    const auto header = decode_header(bytes, "/a/b: trailer");
    ASSERT_FALSE(header) << i;
    EXPECT_EQ(header.error().code, EINVAL);
    EXPECT_EQ(header.error().message.find("/a/b: trailer: the magic number"), 0u);
  }
}

TEST(LsmtHeader, MagicNeedsItsBytes) {
  const HeaderBytes bytes = upstream_index_header();
  EXPECT_TRUE(has_magic(std::span(bytes).first(24)));
  EXPECT_FALSE(has_magic(std::span(bytes).first(23)));
  EXPECT_FALSE(has_magic({}));
}

TEST(LsmtHeader, ImpossibleVirtualSizesAreRefused) {
  for (const uint64_t size : {uint64_t{1}, uint64_t{511}, uint64_t{1000001}, kMaxDiskSize + 1,
                              kMaxDiskSize + 512, std::numeric_limits<uint64_t>::max() - 511}) {
    Header header = index_header();
    header.virtual_size = size;
    const auto decoded = decode_header(encode_header(header), "/a/b: header");
    ASSERT_FALSE(decoded) << size;
    EXPECT_EQ(decoded.error().code, EINVAL);
    EXPECT_EQ(decoded.error().message.find(fmt::format("/a/b: header: virtual_size {} ", size)), 0u)
        << decoded.error().message;
  }
  Header header = index_header();
  header.virtual_size = 0;
  EXPECT_TRUE(decode_header(encode_header(header), "x"));
}

TEST(LsmtHeader, VersionStructSizePaddingAndReservedBytesAreNotChecked) {
  HeaderBytes bytes = upstream_index_header();
  put(bytes, 24, {1, 2, 3, 4});
  put(bytes, 130, {9, 9, 9, 9});
  std::fill(bytes.begin() + 390, bytes.end(), std::byte{0xEE});
  const auto header = decode_header(bytes, "x");
  ASSERT_TRUE(header);
  EXPECT_EQ(header->user_tag, "");
}

TEST(LsmtHeader, AUuidFieldWithoutAUuidIsNil) {
  HeaderBytes bytes = upstream_index_header();
  put(bytes, 56, "not a uuid, but thirty-seven bytes....");
  std::fill_n(bytes.begin() + 93, 37, std::byte{0xFF});
  const auto header = decode_header(bytes, "x");
  ASSERT_TRUE(header);
  EXPECT_TRUE(header->uuid.is_nil());
  EXPECT_TRUE(header->parent_uuid.is_nil());
}

// Records of an append layer over four lowers that overlaybd wrote: the tag byte says 4.
TEST(LsmtEntry, DecodesWhatOverlaybdWroteAndIgnoresTheTag) {
  const auto data = entry_bytes({0xA0, 0, 0, 0, 0, 0, 0x2C, 0, 0x08, 0, 0, 0, 0, 0, 0, 0x04});
  EXPECT_EQ(decode_entry(data),
            (Entry{.offset = Sectors(160), .length = Sectors(11), .physical = Sectors(8)}));
  const auto zero = entry_bytes({0x73, 0x1C, 0, 0, 0, 0, 0xE0, 0, 0x13, 0, 0, 0, 0, 0, 0x80, 0x04});
  EXPECT_EQ(decode_entry(zero), (Entry{.offset = Sectors(7283),
                                       .length = Sectors(56),
                                       .physical = Sectors(19),
                                       .zeroed = true}));
}

TEST(LsmtEntry, EncodesTheSameBytesWithoutATag) {
  EntryBytes bytes;
  bytes.fill(std::byte{0xAA});
  encode_entry(
      {.offset = Sectors(7283), .length = Sectors(56), .physical = Sectors(19), .zeroed = true},
      bytes);
  EXPECT_EQ(bytes, entry_bytes({0x73, 0x1C, 0, 0, 0, 0, 0xE0, 0, 0x13, 0, 0, 0, 0, 0, 0x80, 0x00}));
}

TEST(LsmtEntry, PaddingIsTheDefaultEntry) {
  const auto padding = entry_bytes({0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x03, 0x00});
  EntryBytes bytes;
  encode_entry(Entry(), bytes);
  EXPECT_EQ(bytes, padding);
  EXPECT_TRUE(decode_entry(padding).is_invalid());
  // Only the offset decides.
  EXPECT_TRUE(
      decode_entry(entry_bytes({0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1})).is_invalid());
  EXPECT_FALSE(
      decode_entry(entry_bytes({0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x03, 0x00})).is_invalid());
}

TEST(LsmtEntry, ExtremesComeBack) {
  for (const Entry& entry : {
           Entry{.offset = Sectors(), .length = Sectors(), .physical = Sectors(), .zeroed = false},
           Entry{.offset = kInvalidOffset - Sectors(1),
                 .length = kMaxLength,
                 .physical = kMaxPhysical,
                 .zeroed = false},
           Entry{.offset = kInvalidOffset,
                 .length = Sectors(),
                 .physical = kMaxPhysical,
                 .zeroed = true},
           Entry{.offset = Sectors(), .length = kMaxLength, .physical = Sectors(), .zeroed = true},
       }) {
    EntryBytes bytes;
    encode_entry(entry, bytes);
    EXPECT_EQ(decode_entry(bytes), entry);
  }
}

// A field that is too wide must not spill into its neighbours.
TEST(LsmtEntry, FieldsStayInTheirBits) {
  EntryBytes bytes;
  const Sectors all(std::numeric_limits<uint64_t>::max());
  encode_entry({.offset = all, .length = Sectors(), .physical = Sectors(), .zeroed = false}, bytes);
  EXPECT_EQ(decode_entry(bytes).length, Sectors());
  encode_entry({.offset = Sectors(), .length = Sectors(), .physical = all, .zeroed = false}, bytes);
  EXPECT_FALSE(decode_entry(bytes).zeroed);
  EXPECT_EQ(bytes[15], std::byte{0});
}

TEST(LsmtEntry, AlignedLengthIsWholeBlocks) {
  EXPECT_EQ(kMaxAlignedLength.bytes() % kBlockSize, 0u);
  EXPECT_LE(kMaxAlignedLength, kMaxLength);
  EXPECT_GT(kMaxAlignedLength + Sectors(8), kMaxLength);
}

}  // namespace
}  // namespace obd::lsmt
