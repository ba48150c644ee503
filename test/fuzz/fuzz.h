// What the fuzz targets share: a host in memory whose files hold the input, and a way to fail.
//
// A target is one source file with LLVMFuzzerTestOneInput; the promise it tests is in its first
// lines. Anything may be refused, with a sentence; nothing may crash, hang, or take memory by a
// number that the input names.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "test/support/memory_file_system.h"

namespace obd::fuzz {

using Bytes = std::span<const std::byte>;

inline Bytes as_bytes(const uint8_t* data, size_t size) {
  return std::as_bytes(std::span(data, size));
}

// Ends the fuzzer, which then keeps the input.
inline void require(bool condition, std::string_view what) {
  if (condition) return;
  std::fprintf(stderr, "broken promise: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

// An error has to name what it is about.
inline void require_sentence(const Error& error, std::string_view path) {
  require(error.code > 0, "an error has an errno");
  require(error.message.contains(path), "the sentence names the file: " + error.message);
}

inline void put_file(FileSystem& fs, const std::string& path, Bytes content) {
  auto file = fs.create(path, 0644);
  require(file.has_value() && (*file)->write_at(content, 0).has_value(), "the host takes a file");
}

}  // namespace obd::fuzz
