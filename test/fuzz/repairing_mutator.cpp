// A mutator for files that carry checksums, which would stop a fuzzer at the door: three times out
// of four they are made right again after the change. The inputs are files as they are, so one that
// breaks a promise can be given to obd.

#include <cstddef>
#include <cstdint>

#include "test/fuzz/repair.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 4 != 0) obd::fuzz::repair_blob(std::as_writable_bytes(std::span(data, size)));
  return size;
}
