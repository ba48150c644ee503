// The member of a tar file that opens lies within the file, its bytes are those of the file, and
// our own headers around a member of its size are found again.

#include <algorithm>
#include <vector>

#include "core/format/lsmt.h"
#include "core/format/tar.h"
#include "core/format/zfile.h"
#include "core/zfile/open_blob.h"
#include "test/fuzz/bounds.h"
#include "test/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace obd;
  const fuzz::Bounds limits(size);
  const auto input = fuzz::as_bytes(data, size);
  const auto start = input.first(std::min(size, tar::kMaxPrefixSize));
  const auto member = tar::find_member(start, size, "/layer");
  if (member) {
    fuzz::require(tar::looks_like_tar(start), "what is a tar file looks like one");
    fuzz::require(member->offset <= tar::kMaxPrefixSize && member->offset <= size &&
                      member->length <= size - member->offset,
                  "the member lies within the file");
    const auto prefix = tar::encode_prefix(member->length);
    const auto again = tar::find_member(prefix, tar::kPrefixSize + member->length, "/layer");
    fuzz::require(again && again->offset == tar::kPrefixSize && again->length == member->length,
                  "what was encoded is found");
  } else {
    fuzz::require_sentence(member.error(), "/layer");
  }

  test::MemoryFileSystem fs;
  fuzz::put_file(fs, "/layer", input);
  const auto blob = open_blob(fs, "/layer", nullptr);
  if (!blob) {
    fuzz::require_sentence(blob.error(), "/layer");
    return 0;
  }
  const Container& container = (*blob)->container();
  if (container.compression != Compression::none) return 0;  // for the target zfile to look at
  const bool wrapped =
      !lsmt::has_magic(start) && !zfile::has_magic(start) && tar::looks_like_tar(start);
  fuzz::require(container.tar == wrapped && (!wrapped || member.has_value()),
                "the container is what the file's start says");
  const auto inside = wrapped ? input.subspan(member->offset, member->length) : input;
  std::vector<std::byte> content(inside.size() + 1);
  const auto got = (*blob)->read_at(content, 0);
  fuzz::require(got && *got == inside.size() && (*blob)->size() == inside.size(),
                "the member can be read");
  fuzz::require(std::equal(inside.begin(), inside.end(), content.begin()),
                "the member's bytes are the file's");
  return 0;
}
