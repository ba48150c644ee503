// What a disk holds, as the test programs remember it: the stamp of every cell (disk_cells.h).
//
// Thread-safety: none needed. Errors: as in nbd_client.h, the program says why and ends.

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "test/e2e/disk_cells.h"
#include "test/e2e/nbd_client.h"

namespace obd::test {

using DiskState = std::vector<Stamp>;

DiskState load_state(const std::string& path);

// Replaces the file; survives a power cut once it has returned.
void save_state(const std::string& path, const DiskState& state);

// For every cell, what it may hold.
using AllowedStamps = std::vector<std::vector<Stamp>>;

// Reads the whole disk. Dies, telling of the first wrong cells, unless every cell holds a stamp
// that is allowed there; returns what the cells hold.
DiskState check_disk(NbdConnection& connection, const AllowedStamps& allowed);

// A command-line argument.
uint64_t number(std::string_view text);

}  // namespace obd::test
