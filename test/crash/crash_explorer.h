// Records sessions on an image, crashes the host or the server anywhere in them, and judges what a
// reopen finds: rules 2 to 4 of docs/design.md. Then goes on from the disk that was found, and
// crashes again.
//
//   OBD_CRASH_DISKS  how many disks all crash tests together look at. Default: 100000.
//
// Errors: throws std::runtime_error, saying what was found after which operations.
// Thread-safety: none.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "test/support/crash_disk.h"
#include "test/support/disk_model.h"
#include "test/support/memory_file_system.h"
#include "test/support/modelled_image.h"
#include "test/support/stack_builder.h"

namespace obd::test {

// A share, in percent, of OBD_CRASH_DISKS.
uint64_t crash_disks(uint64_t percent);

class CrashExplorer {
 public:
  using Session = std::function<void(ModelledImage&, Random&)>;
  using Preparation = std::function<void(MemoryFileSystem&)>;

  CrashExplorer(uint64_t seed, const StackOptions& options,
                UpperOrigin origin = UpperOrigin::fresh);

  // Of the images that are opened from now on, so many track dead space; 80 if nobody says.
  void set_reclaim(uint64_t percent) { reclaim_percent_ = percent; }

  // Runs a session, closed or not, and records it. What stands on disk before it is stable. The
  // preparation can disturb the host.
  void record(const Session& session, const Preparation& prepare = nullptr);

  // Looks at that many disks that crashes within the recorded session, not before entry
  // `first_cut`, can leave; after some of them goes on with `later` sessions and crashes again.
  void explore(uint64_t disks, const Session& later, size_t first_cut = 0);

  // Looks at every disk that a power cut anywhere in the recorded session can leave; throws when
  // there are more than `most` for one cut.
  void explore_every(uint64_t most);

  [[nodiscard]] uint64_t disks_seen() const { return disks_seen_; }
  [[nodiscard]] size_t trace_size() const { return scene_.trace.size(); }

 private:
  // Something that can crash: a stable disk and what has been done since.
  struct Scene {
    DiskState start;
    Trace trace;
    std::unique_ptr<DiskModel> model;
    size_t first_cut = 0;
    int boot = 0;
  };

  void explore_scene(const Scene& scene, uint64_t disks, int depth, const Session& later);
  void cut_power(const Scene& scene, const CrashDisk& disk, Chooser& chooser, int depth,
                 const Session& later);
  void kill_server(const Scene& scene, const CrashDisk& disk, int depth, const Session& later);
  void go_on(MemoryFileSystem& fs, Scene scene, int depth, const Session& later);
  std::vector<std::byte> look(MemoryFileSystem& fs, Access access);
  void prove_usable(MemoryFileSystem& fs, std::vector<std::byte> content);

  void maybe_reclaim(ModelledImage& image);

  Random random_;
  uint64_t reclaim_percent_ = 80;
  Stack stack_;
  Scene scene_;
  uint64_t disks_seen_ = 0;
};

}  // namespace obd::test
