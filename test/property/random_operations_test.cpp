// One thread, any operations in any order, byte for byte what a flat array would hold.

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "test/property/extents_check.h"
#include "test/support/memory_file_system.h"
#include "test/support/modelled_image.h"
#include "test/support/seeded.h"
#include "test/support/stack_builder.h"

namespace obd::test {
namespace {

constexpr int kOperations = 120;
constexpr uint64_t kMostSectors = 500;

bool changes_something(const Trace& trace) {
  return std::any_of(trace.begin(), trace.end(), [](const TraceEntry& entry) {
    return entry.kind != TraceKind::mark && entry.kind != TraceKind::sync_begin &&
           entry.kind != TraceKind::sync_end && entry.kind != TraceKind::sync_directory;
  });
}

// A walk through the states of one image.
class Walk {
 public:
  Walk(uint64_t seed, UpperKind kind, UpperOrigin origin) : random_(seed) {
    StackOptions options;
    options.size = random_.between(1, kMostSectors) * kSectorSize;
    if (random_.percent(30)) options.size = align_up(options.size, kBlockSize);
    options.lowers = random_.below(5);
    options.kind = kind;
    stack_ = build_stack(fs_, random_, options, origin);
    model_.emplace(stack_.content);
    image_.emplace(fs_, stack_.config, *model_);
    using enum ZeroDetection;
    if (random_.percent(70)) image_->reclaim(random_.between(2, 40));
    image_->detect_zeroes(random_.percent(50) ? off : random_.percent(50) ? on : unmap);
  }

  void run() {
    expect_ok(image_->open());
    check_all("the first open");
    for (int i = 0; i < kOperations; ++i) step();
    check_all("the last operation");
    close();
    reopen();
    check_all("the last reopen");
  }

 private:
  struct Range {
    uint64_t offset;
    uint64_t length;
  };

  Range random_range() {
    const uint64_t size = model_->size();
    const uint64_t unit = random_.percent(50) ? 1 : random_.percent(50) ? kSectorSize : kBlockSize;
    const uint64_t longest = random_.percent(30) ? 700 : random_.percent(90) ? 20000 : size;
    const uint64_t offset = align_down(random_.below(size), unit);
    uint64_t length = random_.below(std::min(longest, size - offset) + 1);
    length = std::min(align_up(length, unit), size - offset);
    if (random_.percent(5)) length = size - offset;
    return {offset, length};
  }

  void step() {
    const Range range = random_range();
    const uint64_t kind = random_.below(100);
    if (kind < 35) {
      std::vector<std::byte> data(range.length);
      if (random_.percent(80)) random_.fill(data);
      expect_ok(image_->write(data, range.offset, random_.percent(5)));
    } else if (kind < 50) {
      zero(range);
    } else if (kind < 58) {
      expect_ok(image_->trim(range.offset, range.length, random_.percent(5)));
    } else if (kind < 62) {
      expect_ok(image_->flush());
    } else if (kind < 66) {
      expect_ok(image_->reclaim_now());
    } else if (kind < 82) {
      check_range(range);
    } else if (kind < 88) {
      check_extents(fs_, image_->image(), model_->newest(), range.offset, range.length);
    } else if (kind < 91) {
      close();
      reopen();
      check_all("a close and reopen");
    } else if (kind < 95) {
      image_->drop();
      expect_ok(image_->open());
      check_all("the server's death");
    } else if (kind < 97) {
      look_read_only();
    } else {
      ask_for_too_much();
    }
  }

  void zero(Range range) {
    ZeroOptions options;
    options.may_trim = random_.percent(50);
    options.fast_only = random_.percent(25);
    options.fua = random_.percent(5);
    const auto zeroed = image_->zero(range.offset, range.length, options);
    if (options.fast_only && !zeroed) {
      expect_error(zeroed, EOPNOTSUPP);
      return;
    }
    expect_ok(zeroed);
  }

  void close() {
    expect_ok(image_->close());
    // After a clean close the host may go down without a loss.
    if (random_.percent(50)) fs_.set_boot_id(fmt::format("boot-{}", random_.next()));
  }

  // Opens for writing, after closing; opening and closing alone changes nothing.
  void reopen() {
    if (random_.percent(30)) {
      fs_.start_recording();
      expect_ok(image_->open());
      expect_ok(image_->close());
      require(!changes_something(fs_.take_trace()), "opening and closing changed a file");
    }
    expect_ok(image_->open());
  }

  void look_read_only() {
    if (random_.percent(50)) {
      close();
    } else {
      image_->drop();
    }
    fs_.start_recording();
    expect_ok(image_->open(Access::read_only));
    check_all("a read-only open");
    const std::byte one{1};
    expect_error(image_->image().write(std::span(&one, 1), 0), EROFS);
    expect_error(image_->image().zero(0, 1), EROFS);
    expect_error(image_->image().trim(0, 1), EROFS);
    check_extents(fs_, image_->image(), model_->newest(), 0, model_->size());
    expect_ok(image_->close());
    require(!changes_something(fs_.take_trace()), "a read-only look changed a file");
    expect_ok(image_->open());
    check_all("the open after it");
  }

  void ask_for_too_much() {
    Image& image = image_->image();
    const uint64_t size = model_->size();
    const uint64_t begin = random_.between(0, size + 600);
    const uint64_t length = random_.percent(20)
                                ? UINT64_MAX - begin
                                : std::max<uint64_t>(1, size + 1 - std::min(begin, size));
    std::vector<std::byte> data(std::min<uint64_t>(length, size + 1));
    if (begin + data.size() > size) {
      expect_error(image.write(data, begin), ENOSPC);
      expect_error(image.read(data, begin), EINVAL);
    }
    const auto zeroed = image.zero(begin, length);
    require(!zeroed, "zeroing past the end succeeded");
    require(!image.trim(begin, length), "trimming past the end succeeded");
    require(!image.extents(begin, length, [](const ImageExtent&) { return true; }),
            "extents past the end succeeded");
  }

  void check_range(Range range) {
    std::vector<std::byte> found(range.length);
    expect_ok(image_->image().read(found, range.offset));
    const std::vector<std::byte> disk = model_->newest();
    require(
        std::equal(found.begin(), found.end(), disk.begin() + static_cast<ptrdiff_t>(range.offset)),
        fmt::format("read of {} at {} is wrong", range.length, range.offset));
  }

  void check_all(const char* when) {
    const std::vector<std::byte> found = expect_value(image_->read_all());
    const std::vector<std::byte> disk = model_->newest();
    require(found.size() == disk.size(),
            fmt::format("after {}: wrong size {}", when, found.size()));
    const auto [a, b] = std::mismatch(found.begin(), found.end(), disk.begin());
    require(a == found.end(),
            fmt::format("after {}: byte {} of {} is wrong", when, a - found.begin(), disk.size()));
  }

  Random random_;
  MemoryFileSystem fs_;
  Stack stack_;
  std::optional<DiskModel> model_;
  std::optional<ModelledImage> image_;
};

TEST(RandomOperations, Append) {
  for_each_seed(250,
                [](uint64_t seed) { Walk(seed, UpperKind::append, UpperOrigin::fresh).run(); });
}

TEST(RandomOperations, Sparse) {
  for_each_seed(250,
                [](uint64_t seed) { Walk(seed, UpperKind::sparse, UpperOrigin::fresh).run(); });
}

TEST(RandomOperations, AppendThatOverlaybdWrote) {
  for_each_seed(100,
                [](uint64_t seed) { Walk(seed, UpperKind::append, UpperOrigin::upstream).run(); });
}

TEST(RandomOperations, AppendThatOverlaybdContinued) {
  for_each_seed(100, [](uint64_t seed) {
    Walk(seed, UpperKind::append, UpperOrigin::continued_by_upstream).run();
  });
}

TEST(RandomOperations, SparseThatOverlaybdWrote) {
  for_each_seed(100,
                [](uint64_t seed) { Walk(seed, UpperKind::sparse, UpperOrigin::upstream).run(); });
}

}  // namespace
}  // namespace obd::test
