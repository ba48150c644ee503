// The fixtures' operation scripts, applied to a disk in memory: what a set has to read as, worked
// out without any code that knows the format. test/fixtures/README.md describes the scripts.
//
// Units: bytes. Thread-safety: none.

#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "test/interop/workspace.h"

namespace obd::interop {

// The scripts' generator: xorshift64*, little-endian words.
class ScriptStream {
 public:
  explicit ScriptStream(uint64_t seed);

  Bytes random(uint64_t length);        // one word every 8 bytes
  Bytes compressible(uint64_t length);  // one word every sector, repeated

 private:
  uint64_t next();

  uint64_t state_;
};

struct ScriptWrite {
  uint64_t offset = 0;
  Bytes data;  // zeros for zeroed and discarded ranges
};

// The writes, zeroes and discards of a script, in order. Flushes change no content.
std::vector<ScriptWrite> read_script(const std::filesystem::path& script);

// Applies scripts, bottom layer first, to a disk of zeros.
Bytes disk_from_scripts(uint64_t size, const std::vector<std::filesystem::path>& scripts);

}  // namespace obd::interop
