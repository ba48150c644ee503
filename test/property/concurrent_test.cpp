// Many threads, each changing byte ranges of its own. The ranges meet within sectors and blocks, so
// whoever rewrites more than it was asked to must not disturb its neighbours.

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "core/image/image.h"
#include "test/property/extents_check.h"
#include "test/support/memory_file_system.h"
#include "test/support/modelled_image.h"
#include "test/support/seeded.h"
#include "test/support/stack_builder.h"

namespace obd::test {
namespace {

constexpr size_t kThreads = 4;
constexpr int kRounds = 3;
constexpr int kOperations = 60;

// Cuts the disk into pieces and deals them to the threads in turn.
class Shared {
 public:
  Shared(uint64_t seed, UpperKind kind) : random_(seed) {
    StackOptions options;
    options.size = random_.between(40, 200) * kSectorSize;
    options.lowers = random_.below(3);
    options.kind = kind;
    Stack stack = build_stack(fs_, random_, options);
    config_ = stack.config;
    disk_ = std::move(stack.content);
    for (uint64_t at = 0; at < disk_.size();) {
      uint64_t length = random_.percent(50) ? random_.between(1, 700) : random_.between(1, 9000);
      if (random_.percent(30)) length = align_up(length, kSectorSize);
      borders_.push_back(at);
      at += length;
    }
    borders_.push_back(disk_.size());
  }

  void run() {
    fs_.disturb(random_.next());
    for (int round = 0; round < kRounds; ++round) {
      OpenOptions options;
      if (random_.percent(70)) options.reclaim = small_reclaim(random_.between(2, 8));
      image_ = expect_value(Image::open(fs_, config_, options));
      const bool in_background = random_.percent(70);
      if (in_background) image_->start_reclaim();
      check_all("reopening");
      std::vector<uint64_t> seeds(kThreads);
      for (uint64_t& seed : seeds) seed = random_.next();
      run_threads(kThreads, [&](size_t thread) { work(thread, seeds[thread]); });
      check_all("all threads");
      // Where data is does not stay true while it is moved.
      if (!in_background) check_extents(fs_, *image_, disk_, 0, disk_.size());
      if (random_.percent(50)) expect_ok(image_->close());
      image_.reset();
    }
  }

 private:
  void work(size_t thread, uint64_t seed) {
    Random random(seed);
    for (int i = 0; i < kOperations; ++i) {
      const size_t pieces = (borders_.size() - 1 + kThreads - 1 - thread) / kThreads;
      if (pieces == 0) return;
      const size_t piece = random.below(pieces) * kThreads + thread;
      const uint64_t begin = random.between(borders_[piece], borders_[piece + 1] - 1);
      const uint64_t end =
          random.percent(30) ? borders_[piece + 1] : random.between(begin + 1, borders_[piece + 1]);
      const std::span<std::byte> mine = std::span(disk_).subspan(begin, end - begin);
      const uint64_t kind = random.below(100);
      if (kind < 50) {
        random.fill(mine);
        expect_ok(image_->write(mine, begin, {.fua = random.percent(5)}));
      } else if (kind < 65) {
        std::fill(mine.begin(), mine.end(), std::byte{0});
        ZeroOptions options;
        options.may_trim = random.percent(50);
        expect_ok(image_->zero(begin, mine.size(), options));
      } else if (kind < 72) {
        std::fill(mine.begin(), mine.end(), std::byte{0});
        expect_ok(image_->trim(begin, mine.size()));
      } else if (kind < 78) {
        expect_ok(image_->flush());
      } else if (kind < 82) {
        expect_ok(image_->reclaim_now());
      } else if (kind < 85) {
        expect_ok(image_->extents(0, disk_.size(), [](const ImageExtent&) { return true; }));
      } else {
        std::vector<std::byte> found(mine.size());
        expect_ok(image_->read(found, begin));
        require(std::equal(found.begin(), found.end(), mine.begin()),
                fmt::format("thread {} does not read back what it wrote at {}", thread, begin));
      }
    }
  }

  void check_all(const char* when) {
    std::vector<std::byte> found(disk_.size());
    expect_ok(image_->read(found, 0));
    const auto [a, b] = std::mismatch(found.begin(), found.end(), disk_.begin());
    require(a == found.end(),
            fmt::format("after {}: byte {} of {} is wrong", when, a - found.begin(), disk_.size()));
  }

  Random random_;
  MemoryFileSystem fs_;
  ImageConfig config_;
  std::vector<std::byte> disk_;
  std::vector<uint64_t> borders_;
  std::unique_ptr<Image> image_;
};

TEST(ConcurrentNeighbours, Append) {
  for_each_seed(60, [](uint64_t seed) { Shared(seed, UpperKind::append).run(); });
}

TEST(ConcurrentNeighbours, Sparse) {
  for_each_seed(60, [](uint64_t seed) { Shared(seed, UpperKind::sparse).run(); });
}

}  // namespace
}  // namespace obd::test
