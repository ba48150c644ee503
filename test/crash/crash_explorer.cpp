#include "test/crash/crash_explorer.h"

#include <algorithm>
#include <stdexcept>

#include "test/support/chooser.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

constexpr int kDepth = 2;  // crashes after the first
constexpr uint64_t kDisksPerContinuation = 3;
constexpr size_t kEntriesTold = 30;

std::string boot_name(int boot) { return fmt::format("boot-{}", boot); }

// What went before a failure, for a person.
std::string tell(const Trace& trace, size_t cut, const std::string& what) {
  std::string text = what;
  for (size_t i = cut - std::min(cut, kEntriesTold); i < cut; ++i) {
    text += fmt::format("\n    {:4} {}", i, describe(trace[i]));
  }
  return text;
}

}  // namespace

uint64_t crash_disks(uint64_t percent) {
  return number_from_environment("OBD_CRASH_DISKS", 100000) * percent / 100 + 1;
}

CrashExplorer::CrashExplorer(uint64_t seed, const StackOptions& options, UpperOrigin origin)
    : random_(seed) {
  MemoryFileSystem fs(boot_name(0));
  stack_ = build_stack(fs, random_, options, origin);
  scene_.start = fs.state();
  scene_.model = std::make_unique<DiskModel>(stack_.content);
}

void CrashExplorer::record(const Session& session, const Preparation& prepare) {
  MemoryFileSystem fs(scene_.start, boot_name(scene_.boot));
  fs.start_recording();
  if (prepare) prepare(fs);
  ModelledImage image(fs, stack_.config, *scene_.model);
  maybe_reclaim(image);
  expect_ok(image.open());
  session(image, random_);
  image.drop();
  scene_.trace = fs.take_trace();
}

void CrashExplorer::maybe_reclaim(ModelledImage& image) {
  if (random_.percent(reclaim_percent_)) image.reclaim(random_.between(1, 6));
}

void CrashExplorer::explore(uint64_t disks, const Session& later, size_t first_cut) {
  scene_.first_cut = first_cut;
  explore_scene(scene_, disks, kDepth, later);
}

void CrashExplorer::explore_scene(const Scene& scene, uint64_t disks, int depth,
                                  const Session& later) {
  std::vector<size_t> cuts(disks);
  for (size_t& cut : cuts) cut = random_.between(scene.first_cut, scene.trace.size());
  std::sort(cuts.begin(), cuts.end());
  CrashDisk disk(scene.start, scene.trace, random_.next());
  for (const size_t cut : cuts) {
    disk.advance_to(cut);
    ++disks_seen_;
    const bool power = random_.percent(75);
    try {
      if (power) {
        RandomChooser chooser(random_.next());
        cut_power(scene, disk, chooser, depth, later);
      } else {
        kill_server(scene, disk, depth, later);
      }
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(
          tell(scene.trace, cut,
               fmt::format("{}\n  after {} at {} of {}", error.what(),
                           power ? "a power cut" : "the server's death", cut, scene.trace.size())));
    }
  }
}

void CrashExplorer::explore_every(uint64_t most) {
  CrashDisk disk(scene_.start, scene_.trace, 0);
  for (size_t cut = 0; cut <= scene_.trace.size(); ++cut) {
    disk.advance_to(cut);
    EveryChoice choice;
    uint64_t seen = 0;
    do {
      require(++seen <= most, fmt::format("more than {} disks for one cut", most));
      ++disks_seen_;
      try {
        cut_power(scene_, disk, choice, 0, nullptr);
      } catch (const std::runtime_error& error) {
        throw std::runtime_error(tell(
            scene_.trace, cut, fmt::format("{}\n  after a power cut at {}", error.what(), cut)));
      }
    } while (choice.next());
  }
}

void CrashExplorer::cut_power(const Scene& scene, const CrashDisk& disk, Chooser& chooser,
                              int depth, const Session& later) {
  Scene next;
  next.start = disk.power_cut(chooser);
  next.boot = scene.boot + 1;
  MemoryFileSystem fs(next.start, boot_name(next.boot));
  const auto content = look(fs, random_.percent(20) ? Access::read_only : Access::read_write);
  if (const auto complaint = scene.model->judge_power_cut(content, disk.cut())) {
    throw std::runtime_error(*complaint);
  }
  next.model = std::make_unique<DiskModel>(content);
  if (depth > 0 && random_.percent(20)) {
    fs.start_recording();
    go_on(fs, std::move(next), depth - 1, later);
  } else if (random_.percent(20)) {
    prove_usable(fs, content);
  }
}

void CrashExplorer::kill_server(const Scene& scene, const CrashDisk& disk, int depth,
                                const Session& later) {
  const size_t cut = disk.cut();
  size_t partial = 0;
  if (cut < scene.trace.size() && random_.percent(50)) {
    partial = disk.cut_short(random_.below(scene.trace[cut].data.size() + 1));
  }
  MemoryFileSystem fs(disk.server_death(partial), boot_name(scene.boot));
  const auto content = look(fs, random_.percent(20) ? Access::read_only : Access::read_write);
  if (const auto complaint = scene.model->judge_server_death(content, cut)) {
    throw std::runtime_error(fmt::format("{} ({} bytes of the next write)", *complaint, partial));
  }
  if (depth > 0 && random_.percent(20)) {
    Scene next;
    next.start = scene.start;
    next.boot = scene.boot;
    next.model = scene.model->after_server_death(cut);
    fs.start_recording(truncated_trace(scene.trace, cut, partial));
    next.model->observe(content, fs.mark("reopened"));
    next.first_cut = fs.mark("the next session");
    go_on(fs, std::move(next), depth - 1, later);
  } else if (random_.percent(20)) {
    prove_usable(fs, content);
  }
}

void CrashExplorer::go_on(MemoryFileSystem& fs, Scene scene, int depth, const Session& later) {
  {
    ModelledImage image(fs, stack_.config, *scene.model);
    maybe_reclaim(image);
    expect_ok(image.open());
    later(image, random_);
  }
  scene.trace = fs.take_trace();
  explore_scene(scene, kDisksPerContinuation, depth, later);
}

std::vector<std::byte> CrashExplorer::look(MemoryFileSystem& fs, Access access) {
  OpenOptions options;
  options.access = access;
  const auto image = expect_value(Image::open(fs, stack_.config, options));
  std::vector<std::byte> content(image->size());
  expect_ok(image->read(content, 0));
  return content;
}

// Writes, flushes, closes; the host goes down; the disk holds just that.
void CrashExplorer::prove_usable(MemoryFileSystem& fs, std::vector<std::byte> content) {
  auto image = expect_value(Image::open(fs, stack_.config, {}));
  const uint64_t offset = random_.below(content.size());
  const auto part = std::span(content).subspan(offset, random_.below(content.size() - offset) + 1);
  random_.fill(part);
  expect_ok(image->write(part, offset));
  if (random_.percent(50)) expect_ok(image->flush());
  expect_ok(image->close());
  image.reset();
  fs.set_boot_id("the last boot");
  require(look(fs, Access::read_write) == content, "a write after the crash was lost");
}

}  // namespace obd::test
