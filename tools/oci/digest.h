// SHA-256, which names what an OCI image is made of.
//
// Thread-safety: none.

#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "core/io/file.h"
#include "tools/oci/byte_stream.h"

namespace obd::oci {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void add(std::span<const std::byte> bytes);
  // "sha256:" and 64 hexadecimal digits. Nothing may be added afterwards.
  [[nodiscard]] std::string digest();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string digest_of(std::string_view text);

// Of a whole file; `report` is told how much has been read.
Result<std::string> digest_of(const File& file, const ReportProgress& report);

// Gives on what another stream gives, and keeps its digest. Refers to it.
class HashingStream final : public ByteStream {
 public:
  explicit HashingStream(ByteStream& source) : source_(source) {}
  [[nodiscard]] const std::string& name() const override { return source_.name(); }
  [[nodiscard]] Result<size_t> read(std::span<std::byte> out) override;
  // Of what has been read.
  [[nodiscard]] std::string digest() { return hash_.digest(); }

 private:
  ByteStream& source_;
  Sha256 hash_;
};

}  // namespace obd::oci
