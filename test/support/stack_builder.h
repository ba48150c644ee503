// Makes stacks of layers with known content to test on.
//
// Errors: std::runtime_error with the engine's sentence, as expect_ok() throws.
// Thread-safety: none.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/image/config.h"
#include "core/io/file.h"
#include "core/layer/writable_layer.h"
#include "test/support/random.h"

namespace obd::test {

struct StackOptions {
  uint64_t size = 0;  // bytes, a multiple of 512
  size_t lowers = 0;
  UpperKind kind = UpperKind::append;
};

struct Stack {
  ImageConfig config;  // at /image/config.v1.json, not saved
  std::vector<std::byte> content;
};

// Who made the upper, and what is in it already.
enum class UpperOrigin {
  fresh,     // ours, empty
  upstream,  // as overlaybd leaves it: no marker in the log; sparse: an empty index file
  continued_by_upstream,  // ours, then written to by overlaybd; append only
};

// Random sealed lowers, with data, zero extents and holes, under an upper of that origin.
Stack build_stack(FileSystem& fs, Random& random, const StackOptions& options,
                  UpperOrigin origin = UpperOrigin::fresh);

}  // namespace obd::test
