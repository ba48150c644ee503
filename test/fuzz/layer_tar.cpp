// A layer's tar file is read to its end or refused with a sentence; every entry is what the
// reader's header promises, whatever compresses it.

#include <algorithm>
#include <vector>

#include "test/fuzz/fuzz.h"
#include "tools/oci/acl.h"
#include "tools/oci/tar_reader.h"

namespace {

using namespace obd;

// What a few bytes decompress to is cut off, as a fuzzer has no patience.
class ShortStream final : public oci::ByteStream {
 public:
  explicit ShortStream(oci::ByteStream& source) : source_(source) {}
  [[nodiscard]] const std::string& name() const override { return source_.name(); }
  [[nodiscard]] Result<size_t> read(std::span<std::byte> out) override {
    const auto part = out.first(std::min(out.size(), left_));
    left_ -= part.size();
    return source_.read(part);
  }

 private:
  oci::ByteStream& source_;
  size_t left_ = size_t{4} << 20;
};

void check(const oci::TarEntry& entry) {
  fuzz::require(!entry.path.empty() && !entry.path.contains('\0') && !entry.link.contains('\0'),
                "an entry has a name");
  fuzz::require((entry.mode & ~07777U) == 0, "permissions are permissions");
  fuzz::require(entry.mtime.nanoseconds < 1'000'000'000, "a fraction of a second is one");
  uint64_t end = 0;
  for (const ByteRange& range : entry.data) {
    fuzz::require(range.length > 0 && range.offset >= end && range.offset <= entry.size &&
                      range.length <= entry.size - range.offset,
                  "ranges of data lie in order within the file");
    end = range.offset + range.length;
  }
  fuzz::require(entry.data.empty() || entry.type == oci::EntryType::file, "files alone have data");
  if (!entry.access_acl.empty()) {
    const auto acl = oci::acl_from_text(entry.access_acl);
    if (acl) {
      fuzz::require(oci::normal_acl(*acl).value() == *acl, "what was read from text is normal");
    }
  }
  for (const oci::Xattr& xattr : entry.xattrs) (void)oci::normal_acl(xattr.value);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  test::MemoryFileSystem fs;
  fuzz::put_file(fs, "/layer", fuzz::as_bytes(data, size));
  const auto stream = oci::open_layer_stream(fs, "/layer", {});
  if (!stream) {
    fuzz::require_sentence(stream.error(), "/layer");
    return 0;
  }
  ShortStream limited(**stream);
  oci::TarReader reader(limited);
  for (size_t number = 0;; ++number) {
    const auto entry = reader.next();
    if (!entry) {
      fuzz::require_sentence(entry.error(), "/layer");
      return 0;
    }
    if (!*entry) return 0;
    check(**entry);
    // Some are read, in pieces; what is left of them is skipped.
    if (number % 2 == 0 && !(*entry)->data.empty()) {
      std::vector<std::byte> piece(std::min<uint64_t>((*entry)->data.front().length, 700));
      const auto got = reader.read(piece);
      if (!got) {
        fuzz::require_sentence(got.error(), "/layer");
        return 0;
      }
    }
  }
}
