// Crashes while an image is compacted, resized, cloned, and while merged layers take the place of
// its lowers: at every cut the disk is what it was, and doing the same again succeeds.

#include <gtest/gtest.h>

#include <functional>

#include "core/image/clone.h"
#include "core/image/compact.h"
#include "core/image/merge.h"
#include "core/image/resize.h"
#include "test/crash/crash_anywhere.h"
#include "test/crash/crash_explorer.h"
#include "test/crash/sessions.h"

namespace obd::test {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kDisksPerRun = 150;

// What happens to an image, and what its disk may be while it does.
struct Scene {
  std::function<void(FileSystem&)> operate;
  // Throws unless this is a disk that a crash may leave; `whole`: the operation had ended.
  std::function<void(const Bytes& found, const Bytes& before, bool whole)> judge;
  // More to look at after a crash, before the operation is repeated.
  std::function<void(MemoryFileSystem&, const Bytes& before)> look = nullptr;
};

void expect_unchanged(const Bytes& found, const Bytes& before, bool) {
  require(found == before, "the disk is another");
}

// An image whose last session was closed, flushed and killed, or only killed; records the operation
// on it, crashes, and repeats it on what is left.
void operate_and_crash(
    uint64_t seed, UpperKind kind,
    const std::function<Scene(const ImageConfig&, uint64_t size, Random&)>& make) {
  Random random(seed);
  MemoryFileSystem fs("first-boot");
  StackOptions options = small_stack(random, kind);
  options.lowers += 1;
  Stack stack = build_stack(fs, random, options);
  const std::string& path = stack.config.path;
  expect_ok(save_config(fs, stack.config));
  {
    DiskModel model(stack.content);
    ModelledImage image(fs, stack.config, model);
    expect_ok(image.open());
    for (int i = 0; i < 12; ++i) random_operation(image, random);
    // The operation makes the rest stable; until then a power cut may take it back.
    expect_ok(image.flush());
    if (random.percent(50)) expect_ok(image.close());
  }
  const Bytes before = read_image(fs, path, Access::read_only);
  const Scene scene = make(stack.config, before.size(), random);
  const DiskState start = fs.state();
  fs.start_recording();
  scene.operate(fs);
  const size_t whole = fs.mark("done");
  const Trace trace = fs.take_trace();

  crash_anywhere(start, trace, random, kDisksPerRun, [&](MemoryFileSystem& host, size_t cut, bool) {
    const Bytes found = read_image(host, path, Access::read_only);
    scene.judge(found, before, cut > whole);
    if (scene.look) scene.look(host, before);
    if (random.percent(50)) {
      scene.operate(host);
      scene.judge(read_image(host, path, Access::read_only), before, true);
    }
    // It is whole: what is written from here on survives the next boot.
    const auto image = Image::open(host, path, {});
    if (!image) {
      // Sealed, but for the config; a look has said that cloning goes on from there.
      require(image.error().code == EROFS && scene.look, image.error().message);
      return;
    }
    Bytes content((*image)->size());
    expect_ok((*image)->read(content, 0));
    const auto part = std::span(content).first(random.between(1, content.size()));
    random.fill(part);
    expect_ok((*image)->write(part, 0));
    expect_ok((*image)->close());
  });
}

void repeat(uint64_t percent, const std::function<void(uint64_t seed, UpperKind kind)>& run) {
  uint64_t seen = 0;
  for_each_seed_until([&](uint64_t seed) {
    run(seed, seed % 2 == 0 ? UpperKind::append : UpperKind::sparse);
    seen += kDisksPerRun;
    return seen >= crash_disks(percent);
  });
}

TEST(CrashWhileCompacting, LeavesTheDisk) {
  repeat(8, [](uint64_t seed, UpperKind kind) {
    operate_and_crash(seed, kind, [](const ImageConfig& config, uint64_t, Random&) {
      return Scene{
          .operate = [&](FileSystem& fs) { expect_value(compact_image(fs, config.path, nullptr)); },
          .judge = expect_unchanged};
    });
  });
}

TEST(CrashWhileResizing, LeavesTheOldSizeOrTheNew) {
  repeat(8, [](uint64_t seed, UpperKind kind) {
    operate_and_crash(seed, kind, [](const ImageConfig& config, uint64_t old, Random& random) {
      // Shrinking is refused where there is data, which is as well: nothing changes then.
      const uint64_t size = random.between(1, 2 * old / kSectorSize) * kSectorSize;
      return Scene{.operate =
                       [&config, size](FileSystem& fs) {
                         const auto done = resize_image(fs, config.path, size, true);
                         if (!done) require(done.error().code == EINVAL, done.error().message);
                       },
                   .judge =
                       [size](const Bytes& found, const Bytes& before, bool) {
                         require(found.size() == before.size() || found.size() == size,
                                 "a third size");
                         Bytes wanted = before;
                         wanted.resize(found.size());
                         require(found == wanted, "the disk is another");
                         Bytes cut = found;
                         cut.resize(before.size());
                         require(cut == before, "data was cut off");
                       }};
    });
  });
}

TEST(CrashWhileReplacingLowers, LeavesTheDisk) {
  repeat(5, [](uint64_t seed, UpperKind kind) {
    operate_and_crash(seed, kind, [](const ImageConfig& config, uint64_t, Random& random) {
      LowerRange range;
      range.first = random.below(config.lowers.size());
      range.last = random.between(range.first, config.lowers.size() - 1);
      return Scene{.operate =
                       [range, path = config.path](FileSystem& fs) {
                         const ImageConfig now = expect_value(load_config(fs, path));
                         // Done already, as far as the crash left it.
                         if (range.last >= now.lowers.size()) return;
                         const std::string output = "/image/merged-" + Uuid::random().text();
                         const MergeOptions options{.range = range, .replace = true};
                         expect_value(merge_layers(fs, now, options, {.path = output}, nullptr));
                       },
                   .judge = expect_unchanged};
    });
  });
}

TEST(CrashWhileCloning, LeavesTheSourceAndAWholeCloneOrNone) {
  repeat(8, [](uint64_t seed, UpperKind kind) {
    operate_and_crash(seed, kind, [](const ImageConfig& config, uint64_t, Random&) {
      const std::string clone = "/clone/config.v1.json";
      return Scene{
          .operate =
              [&config](FileSystem& fs) {
                // What a crash left in a folder is not overwritten.
                const auto is_taken = [&](const std::string& folder) {
                  return expect_value(fs.exists(folder + "/writable_data")) ||
                         expect_value(fs.exists(folder + "/writable_index"));
                };
                const std::string folder = is_taken("/clone") ? "/other" : "/clone";
                expect_value(clone_image(fs, config.path, folder + "/config.v1.json"));
              },
          .judge = expect_unchanged,
          .look =
              [clone, &config](MemoryFileSystem& fs, const Bytes& before) {
                if (expect_value(fs.exists(clone))) {
                  require(read_image(fs, clone, Access::read_write) == before, "a wrong clone");
                }
                // Whatever the crash left, cloning goes on from there.
                expect_value(clone_image(fs, config.path, "/again/config.v1.json"));
                require(read_image(fs, "/again/config.v1.json", Access::read_write) == before,
                        "the second clone is wrong");
              }};
    });
  });
}

}  // namespace
}  // namespace obd::test
