// Copies of the fixtures in test/fixtures, with their sparse files rebuilt, and their manifest.
//
// Thread-safety: none.

#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "test/interop/workspace.h"

namespace obd::interop {

// What the manifest says of a set.
struct FixtureSet {
  std::string name;
  uint64_t virtual_size = 0;
  std::string sha256_of_disk;
};

// The folder test/fixtures itself; its files are never opened for writing.
std::filesystem::path fixture_folder();

FixtureSet fixture_set(const std::string& name);
// The disk that every file in bad/ was made from.
FixtureSet malformed_base();
// Names of all malformed fixtures, and the files of one, the first being the one to open.
std::vector<std::string> malformed_names();
std::vector<std::string> malformed_files(const std::string& name);
// True when overlaybd would not open it.
bool upstream_refused(const std::string& name);

// Copies a folder of fixtures into the workspace under its own name and rebuilds its sparse files.
std::filesystem::path copy_set(const Workspace& workspace, const std::string& name);
// Copies single files, given relative to test/fixtures, to the top of the workspace.
void copy_files(const Workspace& workspace, const std::vector<std::string>& files);

}  // namespace obd::interop
