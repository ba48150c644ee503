// Crashes and failures while a disk is resized and an update of what is on it is applied: an image
// that opens then holds the old disk or the new one, and one that refuses to open holds the new one
// as soon as the update has been finished.

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>

#include "core/image/check.h"
#include "core/image/commit.h"
#include "core/image/resize.h"
#include "core/image/update.h"
#include "test/crash/crash_anywhere.h"
#include "test/crash/crash_explorer.h"
#include "test/crash/sessions.h"

namespace obd::test {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kDisksPerRun = 150;
constexpr uint64_t kDisksPerContinuation = 6;
const std::string kUpdate = "/image/writable_data.update";
const std::string kWanted = "/wanted/disk";

// An image and what it is to become.
struct Scene {
  ImageConfig config;
  Bytes before;
  Bytes wanted;  // of the new size
};

// Blocks and pieces of blocks that differ, and some that become zeros.
Bytes changed(const Bytes& before, Random& random) {
  Bytes wanted = before;
  const uint64_t most = before.size() / kSectorSize * 2;
  wanted.resize((random.percent(30) ? before.size() / kSectorSize : random.between(1, most)) *
                kSectorSize);
  for (uint64_t changes = random.between(1, 8); changes > 0; --changes) {
    const uint64_t offset = random.below(wanted.size());
    const auto part = std::span(wanted).subspan(
        offset, std::min(wanted.size() - offset, random.between(1, 3 * kBlockSize)));
    if (random.percent(30)) {
      std::ranges::fill(part, std::byte{0});
    } else {
      random.fill(part);
    }
  }
  return wanted;
}

Scene build_scene(MemoryFileSystem& fs, Random& random, UpperKind kind) {
  const UpperOrigin origin = random.percent(20) ? UpperOrigin::upstream : UpperOrigin::fresh;
  Stack stack = build_stack(fs, random, small_stack(random, kind), origin);
  Scene scene{.config = stack.config, .before = {}, .wanted = {}};
  expect_ok(save_config(fs, scene.config));
  {
    DiskModel model(stack.content);
    ModelledImage image(fs, stack.config, model);
    expect_ok(image.open());
    for (int i = 0; i < 12; ++i) random_operation(image, random);
    // Until then a power cut may take back what was written.
    expect_ok(image.flush());
    if (random.percent(50)) expect_ok(image.close());
  }
  scene.before = read_image(fs, scene.config.path, Access::read_only);
  scene.wanted = changed(scene.before, random);
  const auto file = expect_value(fs.create(kWanted, 0644));
  expect_ok(file->write_at(scene.wanted, 0));
  return scene;
}

// What overlaybd-resize does once the file system in the file has its new size.
Result<void> change_image(FileSystem& fs, const Scene& scene) {
  OBD_TRY_ASSIGN(const auto opened, open_for_update(fs, scene.config));
  Image& image = *opened.image;
  OBD_TRY_ASSIGN(const auto wanted, fs.open(kWanted, Access::read_only));
  const uint64_t size = scene.wanted.size();
  OBD_TRY_ASSIGN(const bool changes, write_update(fs, image, *wanted, size, nullptr));
  if (size > image.size()) OBD_TRY(resize_disk(fs, image, size));
  if (changes) OBD_TRY(apply_update(fs, image));
  if (size < image.size()) OBD_TRY(resize_disk(fs, image, size));
  return image.close();
}

void require_old_or_new(const Bytes& found, const Scene& scene) {
  const uint64_t larger = std::max(scene.before.size(), scene.wanted.size());
  require(found.size() == scene.before.size() || found.size() == scene.wanted.size(),
          "the disk has a third size");
  Bytes old = scene.before;
  old.resize(found.size());
  if (found == old && found.size() >= scene.before.size()) return;
  Bytes after = scene.before;
  after.resize(larger);
  std::ranges::copy(scene.wanted, after.begin());
  after.resize(found.size());
  require(found == after && found.size() >= scene.wanted.size(),
          "the disk is neither the old nor the new one");
}

// Looks at an image after a crash; finishes the update when the image asks for it.
void judge(MemoryFileSystem& fs, const Scene& scene, bool whole) {
  const std::string& path = scene.config.path;
  const auto opened = Image::open(fs, path, {.access = Access::read_only});
  if (opened) {
    Bytes found((*opened)->size());
    expect_ok((*opened)->read(found, 0));
    require_old_or_new(found, scene);
    require(!whole || found == scene.wanted, "the disk is not the new one");
    return;
  }
  require(!whole, "a change that had ended is pending");
  require(opened.error().code == EUCLEAN, opened.error().message);
  require(opened.error().message.contains(kUpdate), "the update is not named");
  // Nobody else gets at it either.
  require(!Image::open(fs, path, {}), "it opens for writing");
  require(!Image::open(fs, path, {.access = Access::read_only, .force_share = true}),
          "it opens beside a writer");
  require(!seal_image(fs, path), "it was sealed");
  require(!commit_upper(fs, scene.config, {.path = "/image/committed"}, nullptr),
          "it was committed");
  require(!resize_image(fs, path, 1 << 20, false), "it was resized");
  const auto checked = expect_value(check_image_or_layer(fs, path, false));
  require(std::ranges::any_of(checked.findings, &Finding::wrong), "check finds nothing");

  const auto again = open_for_update(fs, scene.config);
  require(again.has_value(), again ? "" : again.error().message);
  require(again->finished_earlier, "nothing was finished");
  Bytes found(again->image->size());
  expect_ok(again->image->read(found, 0));
  Bytes after = scene.before;
  after.resize(found.size());
  std::ranges::copy(scene.wanted, after.begin());
  require(found == after, "the finished disk is not the new one");
}

void require_changed(MemoryFileSystem& fs, const Scene& scene) {
  expect_ok(change_image(fs, scene));
  require(read_image(fs, scene.config.path, Access::read_write) == scene.wanted,
          "the second run did not make the new disk");
  require(!expect_value(fs.exists(kUpdate)), "the update is still there");
}

// `recorded` is a run of change_image() that began on `start`; crashes it, after `first_cut`.
// Returns how many disks were looked at.
uint64_t crash_recorded(const DiskState& start, const Trace& recorded, size_t first_cut,
                        size_t done, const Scene& scene, Random& random, uint64_t disks, int boot,
                        int depth) {
  const auto boot_name = [](int number) { return fmt::format("boot-{}", number); };
  CrashDisk disk(start, recorded, random.next());
  uint64_t seen = disks;
  for (uint64_t i = 0; i < disks; ++i) {
    const size_t cut = first_cut + i * (recorded.size() - first_cut + 1) / disks;
    disk.advance_to(cut);
    const bool power = random.percent(60);
    RandomChooser chooser(random.next());
    const size_t partial = power ? 0 : disk.cut_short(random.below(5000));
    const DiskState left = power ? disk.power_cut(chooser) : disk.server_death(partial);
    const int next_boot = power ? boot + 1 : boot;
    try {
      {
        MemoryFileSystem fs(left, boot_name(next_boot));
        judge(fs, scene, cut > done);
      }
      MemoryFileSystem fs(left, boot_name(next_boot));
      if (depth == 0 || random.percent(80)) {
        require_changed(fs, scene);
        continue;
      }
      // The next run crashes, too; what the first one left in the cache is not stable yet.
      const Trace so_far = power ? Trace() : truncated_trace(recorded, cut, partial);
      const size_t next_cut = so_far.size();
      fs.start_recording(so_far);
      expect_ok(change_image(fs, scene));
      const size_t next_done = fs.mark("done again");
      seen += crash_recorded(power ? left : start, fs.take_trace(), next_cut, next_done, scene,
                             random, kDisksPerContinuation, next_boot, depth - 1);
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(fmt::format("{}\n  after {} at {} of {}", error.what(),
                                           power ? "a power cut" : "the server's death", cut,
                                           recorded.size()));
    }
  }
  return seen;
}

uint64_t change_and_crash(uint64_t seed, UpperKind kind) {
  Random random(seed);
  MemoryFileSystem fs("boot-0");
  const Scene scene = build_scene(fs, random, kind);
  const DiskState start = fs.state();
  fs.start_recording();
  expect_ok(change_image(fs, scene));
  const size_t done = fs.mark("done");
  require(read_image(fs, scene.config.path, Access::read_only) == scene.wanted, "not changed");
  return crash_recorded(start, fs.take_trace(), 0, done, scene, random, kDisksPerRun, 0, 2);
}

void repeat(uint64_t percent, const std::function<uint64_t(uint64_t seed)>& run) {
  uint64_t seen = 0;
  for_each_seed_until([&](uint64_t seed) {
    seen += run(seed);
    return seen >= crash_disks(percent);
  });
}

TEST(CrashWhileUpdating, Append) {
  repeat(3, [](uint64_t seed) { return change_and_crash(seed, UpperKind::append); });
}

TEST(CrashWhileUpdating, Sparse) {
  repeat(3, [](uint64_t seed) { return change_and_crash(seed, UpperKind::sparse); });
}

// One operation of the host fails, each in turn, alone or with all that follow.
void change_and_fail(uint64_t seed, UpperKind kind, Operation operation, bool sticky) {
  for (uint64_t nth = 1;; ++nth) {
    Random random(seed);
    MemoryFileSystem fs("boot-0");
    const Scene scene = build_scene(fs, random, kind);
    fs.inject({.operation = operation, .nth = nth, .sticky = sticky, .code = ENOSPC});
    const auto done = change_image(fs, scene);
    const bool hit = fs.faults_hit() > 0;
    fs.clear_faults();
    const std::string where =
        fmt::format("operation {} of kind {}: {}: ", nth, static_cast<int>(operation),
                    done ? "done" : done.error().message);
    require(done.has_value() || hit, where + "failed without a reason");
    const DiskState left = fs.state();
    for (const char* boot : {"boot-0", "boot-1"}) {
      try {
        MemoryFileSystem later(left, boot);
        judge(later, scene, done.has_value());
        MemoryFileSystem again(left, boot);
        require_changed(again, scene);
      } catch (const std::runtime_error& error) {
        throw std::runtime_error(where + error.what());
      }
    }
    if (!hit) return;
  }
}

TEST(FailureWhileUpdating, LeavesTheOldDiskOrOneToBeFinished) {
  for_each_seed(3, [](uint64_t seed) {
    for (const UpperKind kind : {UpperKind::append, UpperKind::sparse}) {
      for (const Operation operation :
           {Operation::create, Operation::write, Operation::truncate, Operation::punch,
            Operation::sync, Operation::rename, Operation::remove, Operation::sync_directory}) {
        for (const bool sticky : {false, true}) change_and_fail(seed, kind, operation, sticky);
      }
    }
  });
}

}  // namespace
}  // namespace obd::test
