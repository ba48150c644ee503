#include "tools/oci/oci_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tools/oci/digest.h"
#include "tools/oci/tar_header.h"

namespace obd::oci {
namespace {

TEST(OciLayout, DigestsAreThoseOfTheStandard) {
  EXPECT_EQ(digest_of(""),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(digest_of("abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(OciLayout, ANameWithoutATagGetsTheUsualOne) {
  EXPECT_EQ(with_tag("app"), "app:latest");
  EXPECT_EQ(with_tag("host:5000/app"), "host:5000/app:latest");
  EXPECT_EQ(with_tag("host:5000/app:1"), "host:5000/app:1");
}

TEST(OciLayout, TarHeadersHaveTheirSizeWhateverItIs) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{4096}, (uint64_t{1} << 33) - 1,
                              uint64_t{1} << 33, uint64_t{1} << 50}) {
    const std::string header = tar_file_header("blobs/sha256/x", size, 1'600'000'000);
    const auto bytes = std::as_bytes(std::span(header));
    const auto decoded = decode_tar_header(TarBlock(bytes.first<kTarBlock>()), "here");
    ASSERT_TRUE(decoded.has_value()) << decoded.error().message;
    EXPECT_EQ(decoded->size, static_cast<int64_t>(size));
    EXPECT_EQ(decoded->name, "blobs/sha256/x");
    EXPECT_EQ(decoded->mtime, 1'600'000'000);
    EXPECT_EQ(decoded->mode, 0644);
  }
}

TEST(OciLayout, KnowsFileSystemsByTheirMagic) {
  std::string disk(2048, '\0');
  EXPECT_EQ(file_system_in(std::as_bytes(std::span(disk))), "");
  disk.replace(1024 + 0x38, 2, "\x53\xEF");
  EXPECT_EQ(file_system_in(std::as_bytes(std::span(disk))), "ext4");
  EXPECT_EQ(file_system_in(std::as_bytes(std::span(disk)).first(1024)), "");
  disk.replace(0, 4, "XFSB");
  disk.replace(1024 + 0x38, 2, "zz");
  EXPECT_EQ(file_system_in(std::as_bytes(std::span(disk))), "xfs");
}

}  // namespace
}  // namespace obd::oci
