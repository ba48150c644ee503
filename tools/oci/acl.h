// POSIX ACLs: from the text that tar files hold to the bytes that getxattr(2) gives.
//
// Sources: acl(5), "ACL TEXT FORMS"; Linux, include/uapi/linux/posix_acl_xattr.h (version 2).
//
// Thread-safety: pure functions. Errors: EINVAL; the sentence quotes the part that is wrong.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace obd::oci {

inline constexpr std::string_view kAccessAcl = "system.posix_acl_access";
inline constexpr std::string_view kDefaultAcl = "system.posix_acl_default";

// "user::rw-,user:lisa:r--:1001,group::r--,mask::r--,other::---": entries separated by commas or
// white space. Who is named has a number, after the permissions or in the place of the name.
Result<std::string> acl_from_text(std::string_view text);

// Refuses bytes that are no ACL; sorts its entries as the kernel wants them.
Result<std::string> normal_acl(std::string_view bytes);

// The permissions that a file with this access ACL has.
uint32_t mode_of_acl(std::string_view normal);

// True when the permissions say all that the ACL does.
bool is_minimal_acl(std::string_view normal);

}  // namespace obd::oci
