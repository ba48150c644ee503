#include "tools/oci/digest.h"

#include <openssl/evp.h>

#include <array>
#include <new>
#include <vector>

namespace obd::oci {

struct Sha256::State {
  EVP_MD_CTX* context = ::EVP_MD_CTX_new();
};

// Libcrypto fails here for want of memory alone.
Sha256::Sha256() : state_(std::make_unique<State>()) {
  if (state_->context == nullptr ||
      ::EVP_DigestInit_ex(state_->context, ::EVP_sha256(), nullptr) != 1) {
    throw std::bad_alloc();
  }
}

Sha256::~Sha256() { ::EVP_MD_CTX_free(state_->context); }

void Sha256::add(std::span<const std::byte> bytes) {
  if (::EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) != 1) throw std::bad_alloc();
}

std::string Sha256::digest() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> bytes{};
  unsigned size = 0;
  if (::EVP_DigestFinal_ex(state_->context, bytes.data(), &size) != 1) throw std::bad_alloc();
  std::string text = "sha256:";
  for (unsigned i = 0; i < size; ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

std::string digest_of(std::string_view text) {
  Sha256 hash;
  hash.add(std::as_bytes(std::span(text)));
  return hash.digest();
}

Result<std::string> digest_of(const File& file, const ReportProgress& report) {
  OBD_TRY_ASSIGN(const FileInfo info, file.info());
  Sha256 hash;
  std::vector<std::byte> buffer(size_t{1} << 20);
  uint64_t done = 0;
  for (;;) {
    OBD_TRY_ASSIGN(const size_t got, file.read_at(buffer, done));
    if (got == 0) return hash.digest();
    hash.add(std::span(buffer).first(got));
    done += got;
    OBD_TRY(report_progress(report, "hashing", done, std::max(done, info.size)));
  }
}

Result<size_t> HashingStream::read(std::span<std::byte> out) {
  OBD_TRY_ASSIGN(const size_t got, source_.read(out));
  hash_.add(out.first(got));
  return got;
}

}  // namespace obd::oci
