// What happened on a MemoryFileSystem, in one global order.
//
// Thread-safety: plain values.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "test/support/sparse_bytes.h"

namespace obd::test {

enum class TraceKind {
  write,           // offset, data
  truncate,        // length: the new size
  punch,           // offset, length
  sync_begin,      // what was written before this ...
  sync_end,        // ... is stable from here on; begun: the position of its sync_begin
  sync_failed,     // ... may be stable or not, and no later sync will tell; begun
  create,          // path
  rename,          // path, target; file: what it names
  remove,          // path
  sync_directory,  // path: the folder, whose names are stable from here on
  mark,            // path: what the test wanted to remember
};

struct TraceEntry {
  TraceKind kind = TraceKind::mark;
  uint64_t file = 0;  // inode number, where a file is concerned
  std::string path = {};
  std::string target = {};
  uint64_t offset = 0;
  uint64_t length = 0;
  size_t begun = 0;
  std::vector<std::byte> data = {};
};

using Trace = std::vector<TraceEntry>;

// Everything on a disk: files by inode number, and names.
struct DiskState {
  std::map<uint64_t, SparseBytes> files;
  std::map<std::string, uint64_t> names;
  uint64_t next_file = 1;  // inode number that no file has had
};

// One line about an entry, for failure messages.
std::string describe(const TraceEntry& entry);

}  // namespace obd::test
