// What the tests of blobs share: content to store, and storing and reading it in one step.

#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/zfile/blob_writer.h"
#include "core/zfile/open_blob.h"
#include "test/support/random.h"
#include "test/support/seeded.h"

namespace obd::test {

using Bytes = std::vector<std::byte>;

// Runs of zeros, of text that compresses and of bytes that do not.
inline Bytes mixed_content(uint64_t seed, size_t size) {
  Random random(seed);
  Bytes content(size);
  for (size_t at = 0; at < size;) {
    const size_t run = std::min<size_t>(size - at, random.between(1, 6000));
    const auto part = std::span(content).subspan(at, run);
    if (random.percent(40)) {
      random.fill(part);
    } else if (random.percent(70)) {
      for (size_t i = 0; i < run; ++i) part[i] = static_cast<std::byte>("overlaybd "[i % 10]);
    }
    at += run;
  }
  return content;
}

inline Bytes random_content(uint64_t seed, size_t size) {
  Bytes content(size);
  Random(seed).fill(content);
  return content;
}

// Writes the content in pieces of odd sizes; returns the warnings.
inline std::vector<std::string> write_blob(FileSystem& fs, const std::string& path,
                                           const Bytes& content, const BlobOptions& options) {
  const auto writer = expect_value(BlobWriter::create(fs, path, options, true));
  for (size_t at = 0; at < content.size();) {
    const size_t count = std::min<size_t>(content.size() - at, 777 + at % 100000);
    expect_ok(writer->append(std::span(content).subspan(at, count)));
    at += count;
  }
  expect_ok(writer->finish());
  return writer->warnings();
}

inline Bytes read_range(const Blob& blob, uint64_t offset, size_t length) {
  Bytes out(length);
  out.resize(expect_value(blob.read_at(out, offset)));
  return out;
}

inline Bytes read_blob(const Blob& blob) { return read_range(blob, 0, blob.size()); }

inline Bytes file_bytes(FileSystem& fs, const std::string& path) {
  const std::string text = expect_value(read_whole(fs, path, uint64_t{1} << 30));
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

}  // namespace obd::test
