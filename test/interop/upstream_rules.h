// A second reader of the LSMT format, as strict as overlaybd's own.
//
// It shares no code with the engine: it was written from the description of the format alone, works
// on plain integers (sectors) and files held in memory, and is slow. Tests use it to learn whether
// overlaybd would open what the engine wrote, and what it would then serve.
//
// Thread-safety: none. Errors: RuleBroken, whose text names the rule.

#pragma once

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "test/interop/workspace.h"

namespace obd::interop {

class RuleBroken : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// One index entry; all fields in sectors.
struct ForeignEntry {
  uint64_t offset = 0;
  uint64_t length = 0;
  uint64_t physical = 0;
  bool zeroed = false;

  bool operator==(const ForeignEntry&) const = default;
};

struct ForeignLayer {
  uint32_t header_flags = 0;
  uint32_t trailer_flags = 0;  // 0 when there is no trailer
  uint64_t virtual_size = 0;   // bytes
  std::string uuid;
  std::string parent_uuid;
  std::string user_tag;
  std::vector<ForeignEntry> entries;  // later ones win; invalid ones are left out
  size_t invalid_entries = 0;         // that were skipped
};

// Each applies every rule that overlaybd applies when it opens such a layer.
ForeignLayer read_sealed_layer(const std::filesystem::path& file);
ForeignLayer read_append_pair(const std::filesystem::path& data,
                              const std::filesystem::path& index);
// The index comes from the file's holes alone, whatever the index file says.
ForeignLayer read_sparse_layer(const std::filesystem::path& data);

// What overlaybd would not notice, but a writer must nevertheless keep to.
void check_sealed_writer(const std::filesystem::path& file);
void check_append_writer(const std::filesystem::path& data, const std::filesystem::path& index);

// Puts a layer over what is already on the disk, entry by entry.
void paint(const ForeignLayer& layer, const std::filesystem::path& data, Bytes& disk);

}  // namespace obd::interop
