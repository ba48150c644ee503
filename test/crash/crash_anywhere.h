// Crashes all along the recording of one operation on images.
//
// Errors: what judging throws, with the place of the crash.

#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "core/image/image.h"
#include "test/support/chooser.h"
#include "test/support/crash_disk.h"
#include "test/support/memory_file_system.h"
#include "test/support/random.h"
#include "test/support/seeded.h"

namespace obd::test {

inline std::vector<std::byte> read_image(MemoryFileSystem& fs, const std::string& path,
                                         Access access) {
  OpenOptions options;
  options.access = access;
  const auto image = expect_value(Image::open(fs, path, options));
  std::vector<std::byte> content(image->size());
  expect_ok(image->read(content, 0));
  return content;
}

// Calls judge(host, cut, whether the power was cut) for that many disks, spread evenly over the
// cuts of the recording; when they are more than the cuts, each cut has several.
template <typename Judge>
void crash_anywhere(const DiskState& start, const Trace& trace, Random& random, uint64_t disks,
                    Judge&& judge) {
  CrashDisk disk(start, trace, random.next());
  for (uint64_t i = 0; i < disks; ++i) {
    const size_t cut = i * (trace.size() + 1) / disks;
    disk.advance_to(cut);
    const bool power = random.percent(75);
    RandomChooser chooser(random.next());
    MemoryFileSystem fs(
        power ? disk.power_cut(chooser) : disk.server_death(disk.cut_short(random.below(5000))),
        power ? "second-boot" : "first-boot");
    try {
      judge(fs, cut, power);
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(fmt::format("{}\n  after {} at {} of {}", error.what(),
                                           power ? "a power cut" : "the server's death", cut,
                                           trace.size()));
    }
  }
}

}  // namespace obd::test
