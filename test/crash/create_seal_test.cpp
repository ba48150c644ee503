// Crashes while an image is made, and while its upper is sealed.

#include <gtest/gtest.h>

#include <cerrno>
#include <stdexcept>

#include "test/crash/crash_anywhere.h"
#include "test/crash/crash_explorer.h"
#include "test/crash/sessions.h"
#include "test/support/chooser.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

constexpr uint64_t kDisksPerRun = 100;

void change_image(MemoryFileSystem& fs, const std::string& path, Random& random,
                  std::vector<std::byte>& content) {
  const auto image = expect_value(Image::open(fs, path, {}));
  const auto part = std::span(content).subspan(random.below(content.size()));
  random.fill(part);
  expect_ok(image->write(part, content.size() - part.size()));
  expect_ok(image->close());
}

// The config is written last: when it is there, so is all else.
void create_and_crash(uint64_t seed, UpperKind kind) {
  Random random(seed);
  MemoryFileSystem fs("first-boot");
  Stack stack = build_stack(fs, random, small_stack(random, kind));
  ImageConfig config = stack.config;
  config.path = "/image/new.json";
  config.upper = UpperConfig{"/image/new_data", "/image/new_index"};
  NewLayer layer;
  layer.kind = kind;
  layer.virtual_size = stack.content.size();
  layer.uuid = Uuid::random();
  const auto create = [&](FileSystem& host) {
    expect_ok(create_writable_layer(host, config.upper->data, config.upper->index, layer));
    expect_ok(save_config(host, config));
  };

  const DiskState start = fs.state();
  fs.start_recording();
  create(fs);
  const size_t made = fs.mark("made");
  const Trace trace = fs.take_trace();
  crash_anywhere(start, trace, random, kDisksPerRun, [&](MemoryFileSystem& host, size_t cut, bool) {
    if (!expect_value(host.exists(config.path))) {
      require(cut <= made, "an image that had been made is gone");
      // What is left of the attempt is in nobody's way once it is removed.
      for (const std::string& path : {config.upper->data, config.upper->index}) {
        if (expect_value(host.exists(path))) expect_ok(host.remove(path));
      }
      create(host);
    }
    std::vector<std::byte> content = stack.content;
    require(read_image(host, config.path, Access::read_write) == content, "a new image is wrong");
    change_image(host, config.path, random, content);
    host.set_boot_id("third-boot");
    require(read_image(host, config.path, Access::read_write) == content, "a write was lost");
  });
}

void seal_and_crash(uint64_t seed, UpperKind kind) {
  Random random(seed);
  MemoryFileSystem fs("first-boot");
  Stack stack = build_stack(fs, random, small_stack(random, kind));
  const std::string& path = stack.config.path;
  expect_ok(save_config(fs, stack.config));
  const DiskState start = fs.state();

  fs.start_recording();
  DiskModel model(stack.content);
  ModelledImage image(fs, stack.config, model);
  expect_ok(image.open());
  short_session(image, random);
  image.drop();
  const size_t begun = fs.mark("seal begins");
  (void)expect_value(seal_image(fs, path));
  const size_t sealed = fs.mark("sealed");
  model.complete_flush(begun, sealed);
  const Trace trace = fs.take_trace();

  crash_anywhere(
      start, trace, random, kDisksPerRun, [&](MemoryFileSystem& host, size_t cut, bool power) {
        std::vector<std::byte> content = read_image(host, path, Access::read_only);
        const auto complaint =
            power ? model.judge_power_cut(content, cut) : model.judge_server_death(content, cut);
        if (complaint) throw std::runtime_error(*complaint);

        if (expect_value(load_config(host, path)).upper) {
          require(cut <= sealed, "the config names the upper again");
          if (const auto opened = Image::open(host, path, {}); !opened) {
            require(opened.error().code == EROFS, opened.error().message);
          } else if (random.percent(50)) {
            expect_ok((*opened)->write(content, 0));
          }
          const DiskState before = host.state();
          host.start_recording();
          (void)expect_value(seal_image(host, path));
          const Trace second = host.take_trace();
          // This seal was whole, so it stays.
          if (power) {
            CrashDisk again(before, second, random.next());
            again.advance_to(second.size());
            RandomChooser chooser(random.next());
            MemoryFileSystem later(again.power_cut(chooser), "third-boot");
            require(!expect_value(load_config(later, path)).upper, "a whole seal was undone");
          }
        }
        const ImageConfig config = expect_value(load_config(host, path));
        require(!config.upper && config.lowers.size() == stack.config.lowers.size() + 1,
                "the config is not that of a sealed image");
        require(read_image(host, path, Access::read_write) == content,
                "sealing changed the content");
      });
}

// Sealing meets a failing host: it says so, and once the host is well, nothing is lost.
void seal_and_fail(uint64_t seed, UpperKind kind, Operation operation, size_t prefix) {
  for (uint64_t nth = 1;; ++nth) {
    Random random(seed);
    MemoryFileSystem fs("first-boot");
    Stack stack = build_stack(fs, random, small_stack(random, kind));
    const std::string& path = stack.config.path;
    expect_ok(save_config(fs, stack.config));
    DiskModel model(stack.content);
    {
      ModelledImage image(fs, stack.config, model);
      expect_ok(image.open());
      for (int i = 0; i < 10; ++i) random_operation(image, random);
      // A failed sync gives up what nobody had flushed.
      expect_ok(image.flush());
    }
    Fault fault;
    fault.operation = operation;
    fault.nth = nth;
    fault.code = ENOSPC;
    fault.prefix = prefix;
    fs.inject(fault);
    const auto sealed = seal_image(fs, path);
    const bool hit = fs.faults_hit() > 0;
    fs.clear_faults();
    const std::string where = fmt::format("{} operation {} of kind {}, prefix {}: {} ",
                                          kind == UpperKind::append ? "append" : "sparse", nth,
                                          static_cast<int>(operation), prefix,
                                          sealed ? "sealed" : sealed.error().message);
    require(sealed.has_value() || hit, where + "failed without a reason");
    require(read_image(fs, path, Access::read_only) == model.newest(), where + "content was lost");
    if (expect_value(load_config(fs, path)).upper) (void)expect_value(seal_image(fs, path));
    require(read_image(fs, path, Access::read_only) == model.newest(), where + "sealing lost it");
    if (!hit) return;
  }
}

void repeat(uint64_t percent, const std::function<void(uint64_t seed)>& run) {
  uint64_t seen = 0;
  for_each_seed_until([&](uint64_t seed) {
    run(seed);
    seen += kDisksPerRun;
    return seen >= crash_disks(percent);
  });
}

TEST(CrashWhileCreating, Append) {
  repeat(2, [](uint64_t seed) { create_and_crash(seed, UpperKind::append); });
}

TEST(CrashWhileCreating, Sparse) {
  repeat(2, [](uint64_t seed) { create_and_crash(seed, UpperKind::sparse); });
}

TEST(CrashWhileSealing, Append) {
  repeat(10, [](uint64_t seed) { seal_and_crash(seed, UpperKind::append); });
}

TEST(CrashWhileSealing, Sparse) {
  repeat(10, [](uint64_t seed) { seal_and_crash(seed, UpperKind::sparse); });
}

TEST(SealOnAFailingHost, KeepsTheContent) {
  for_each_seed(5, [](uint64_t seed) {
    for (const UpperKind kind : {UpperKind::append, UpperKind::sparse}) {
      for (const size_t prefix : {size_t{0}, size_t{100}, SIZE_MAX}) {
        seal_and_fail(seed, kind, Operation::write, prefix);
      }
      for (const Operation operation :
           {Operation::sync, Operation::truncate, Operation::rename, Operation::remove,
            Operation::sync_directory, Operation::read, Operation::create, Operation::open}) {
        seal_and_fail(seed, kind, operation, 0);
      }
    }
  });
}

}  // namespace
}  // namespace obd::test
