// Layers and images for the benchmarks to measure, on a tmpfs.
//
// Errors: std::runtime_error with the engine's sentence, as expect_ok() throws.
// Thread-safety: none.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/format/lsmt.h"
#include "core/image/config.h"
#include "core/io/file.h"
#include "core/layer/writable_layer.h"

namespace obd::test {

inline constexpr uint64_t kBenchSeed = 1;
inline constexpr Sectors kSectorsPerBlock = Sectors::floor(kBlockSize);

// A new folder in $OBD_BENCH_DIR (/dev/shm), removed with all that is in it.
class BenchFolder {
 public:
  BenchFolder();
  ~BenchFolder();
  BenchFolder(const BenchFolder&) = delete;
  BenchFolder& operator=(const BenchFolder&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  // The path of a name in the folder.
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Extents of 4 KiB all over a disk, whose layers share none.
struct ScatteredStack {
  size_t layers = 1;
  uint64_t extents = 0;  // of all layers together
  // Disk blocks for each extent: leaves gaps.
  uint64_t blocks_per_extent = 64;

  [[nodiscard]] uint64_t disk_blocks() const { return extents * blocks_per_extent; }
};

// Makes the layers, lower-0 and so on, and returns the config of an image over them that has no
// upper. Their data is holes in the files: what counts is the index.
ImageConfig make_scattered_lowers(FileSystem& fs, const BenchFolder& folder,
                                  const ScatteredStack& stack);

// One raw layer whose content is holes.
void make_hollow_layer(FileSystem& fs, const std::string& path,
                       const std::vector<lsmt::Entry>& entries, uint64_t virtual_size);

// The config, which is not saved, of an image with an empty upper alone, whose files are in the
// folder.
ImageConfig make_empty_image(FileSystem& fs, const std::string& folder, UpperKind kind,
                             uint64_t virtual_size);

// The bytes of the running program, over and over: what layers are made of.
std::vector<std::byte> program_bytes(size_t size);

}  // namespace obd::test
