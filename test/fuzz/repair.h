// Makes the checksums of a file right again after something in it was changed: without that a
// fuzzer would never get past them.
//
// Thread-safety: pure functions of the bytes. Errors: none; what is no such file stays as it is.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace obd::fuzz {

// A sealed layer's file: the digest, the jump table's and the blocks' checksums of a ZFile, the
// headers of a tar file around it.
void repair_blob(std::span<std::byte> file);

// An index log: the check values of its markers, and its sessions' boot, unless that is 0.
void repair_log(std::span<std::byte> file, uint64_t boot_hash);

}  // namespace obd::fuzz
