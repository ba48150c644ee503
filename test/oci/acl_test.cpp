#include "tools/oci/acl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace obd::oci {
namespace {

using ::testing::HasSubstr;

std::string entry(unsigned tag, unsigned permissions, uint32_t id) {
  std::string bytes;
  bytes += static_cast<char>(tag);
  bytes += '\0';
  bytes += static_cast<char>(permissions);
  bytes += '\0';
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(id >> (8 * i));
  return bytes;
}

const std::string kVersion("\2\0\0\0", 4);
constexpr uint32_t kNobody = 0xFFFFFFFF;

// As getfattr shows what setfacl -m u:1001:r,g:7:rwx has made of mode 0640.
std::string full_acl() {
  return kVersion + entry(0x01, 6, kNobody) + entry(0x02, 4, 1001) + entry(0x04, 4, kNobody) +
         entry(0x08, 7, 7) + entry(0x10, 7, kNobody) + entry(0x20, 0, kNobody);
}

TEST(Acl, IsReadFromEveryFormOfText) {
  for (const char* text :
       {"user::rw-,user:lisa:r--:1001,group::r--,group:staff:rwx:7,mask::rwx,other::---",
        "user::rw-\nuser:1001:r--\ngroup::r--\ngroup:7:rwx\nmask::rwx\nother::---\n",
        "u::rw-, u:1001:r--, g:7:rwx, g::r--, m:rwx, o:---",
        "other::---,mask::rwx,group:7:rwx,group::r--,user:1001:r--,user::rw- # a comment"}) {
    const auto acl = acl_from_text(text);
    ASSERT_TRUE(acl.has_value()) << text << ": " << acl.error().message;
    EXPECT_EQ(*acl, full_acl()) << text;
  }
}

TEST(Acl, RefusesTextThatMakesNoSense) {
  for (const auto& [text, word] : std::vector<std::pair<std::string, std::string>>{
           {"user::rw-", "one entry each"},
           {"user::rw-,group::r--,other::---,user:5:r--", "one mask"},
           {"user::rw-,group::r--,other::---,mask::r--,mask::r--", "one mask"},
           {"user::rw-,user::rw-,group::r--,other::---", "one entry each"},
           {"user::rw-,user:5:r--,user:5:rw-,group::r--,mask::r--,other::---", "twice"},
           {"user:lisa:r--,user::rw-,group::r--,mask::r--,other::---", "--numeric-owner"},
           {"user:4294967295:r--,user::rw-,group::r--,mask::r--,other::---", "nobody can have"},
           {"user::rwz,group::r--,other::---", "no permissions"},
           {"owner::rw-,group::r--,other::---", "unknown kind"},
           {"mask:5:rw-,user::rw-,group::r--,other::---", "names somebody"},
           {"user", "malformed"},
           {"a:b:c:d:e", "malformed"},
           {"", "one entry each"}}) {
    const auto acl = acl_from_text(text);
    ASSERT_FALSE(acl.has_value()) << text;
    EXPECT_THAT(acl.error().message, HasSubstr(word)) << text;
  }
}

TEST(Acl, BytesAreCheckedAndSorted) {
  const std::string shuffled = kVersion + entry(0x20, 0, 0) + entry(0x08, 7, 7) +
                               entry(0x01, 6, 0) + entry(0x10, 7, 12) + entry(0x02, 4, 1001) +
                               entry(0x04, 4, kNobody);
  EXPECT_EQ(normal_acl(shuffled).value(), full_acl());
  EXPECT_FALSE(normal_acl("").has_value());
  EXPECT_FALSE(normal_acl(full_acl().substr(0, 11)).has_value());
  EXPECT_FALSE(normal_acl("\1" + full_acl().substr(1)).has_value());
  EXPECT_FALSE(normal_acl(full_acl() + entry(0x40, 1, 1)).has_value());
  EXPECT_FALSE(normal_acl(full_acl() + entry(0x02, 9, 3)).has_value());
}

TEST(Acl, TellsThePermissionsThatItComesTo) {
  EXPECT_EQ(mode_of_acl(full_acl()), 0670U);
  EXPECT_FALSE(is_minimal_acl(full_acl()));
  const std::string minimal = acl_from_text("user::rwx,group::r-x,other::--x").value();
  EXPECT_EQ(mode_of_acl(minimal), 0751U);
  EXPECT_TRUE(is_minimal_acl(minimal));
}

}  // namespace
}  // namespace obd::oci
