// Many threads writing, zeroing and reading the same sectors. Whatever a read finds was written by
// somebody, is no older than what had completed when it began, and is what a reopen finds.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "core/image/image.h"
#include "test/support/memory_file_system.h"
#include "test/support/seeded.h"
#include "test/support/stack_builder.h"

namespace obd::test {
namespace {

constexpr size_t kThreads = 4;
constexpr size_t kOperations = 60;  // of each thread
constexpr uint64_t kNever = UINT64_MAX;

// An operation's number fills every sector that it writes; the initial content is number 0. A zero
// is written as 0 as well, so it carries its number in `zeroes`.
struct Operation {
  std::atomic<uint64_t> begun = kNever;
  std::atomic<uint64_t> ended = kNever;
  uint64_t first = 0;
  uint64_t last = 0;  // sectors, included
  bool zeroes = false;
};

class Contest {
 public:
  Contest(uint64_t seed, UpperKind kind) : random_(seed), operations_(kThreads * kOperations + 1) {
    StackOptions options;
    options.size = random_.between(9, 60) * kSectorSize;
    options.kind = kind;
    config_ = build_stack(fs_, random_, options).config;
    sectors_ = options.size / kSectorSize;
    operations_[0].begun = operations_[0].ended = 0;
    operations_[0].last = sectors_ - 1;
    operations_[0].zeroes = true;
  }

  void run() {
    fs_.disturb(random_.next());
    image_ = expect_value(Image::open(fs_, config_, {}));
    std::vector<uint64_t> seeds(kThreads);
    for (uint64_t& seed : seeds) seed = random_.next();
    run_threads(kThreads, [&](size_t thread) { work(thread, seeds[thread]); });
    const std::vector<std::byte> in_memory = read_checked(0, sectors_ - 1);
    if (random_.percent(50)) expect_ok(image_->close());
    image_.reset();
    image_ = expect_value(Image::open(fs_, config_, {}));
    require(read_checked(0, sectors_ - 1) == in_memory, "memory and disk do not agree");
  }

 private:
  void work(size_t thread, uint64_t seed) {
    Random random(seed);
    for (size_t i = 0; i < kOperations; ++i) {
      const uint64_t number = 1 + thread * kOperations + i;
      const uint64_t first = random.below(sectors_);
      const uint64_t last = std::min(sectors_ - 1, first + random.below(20));
      if (random.percent(35)) {
        read_checked(first, last);
      } else if (random.percent(15)) {
        expect_ok(image_->flush());
      } else {
        change(operations_[number], number, first, last, random);
      }
    }
  }

  void change(Operation& operation, uint64_t number, uint64_t first, uint64_t last,
              Random& random) {
    operation.first = first;
    operation.last = last;
    operation.zeroes = random.percent(25);
    std::vector<std::byte> data((last - first + 1) * kSectorSize);
    if (!operation.zeroes) {
      for (size_t at = 0; at < data.size(); at += sizeof(number)) {
        std::memcpy(&data[at], &number, sizeof(number));
      }
    }
    operation.begun = ++clock_;
    if (operation.zeroes) {
      ZeroOptions options;
      options.may_trim = random.percent(70);
      expect_ok(image_->zero(first * kSectorSize, data.size(), options));
    } else {
      expect_ok(image_->write(data, first * kSectorSize));
    }
    operation.ended = ++clock_;
  }

  std::vector<std::byte> read_checked(uint64_t first, uint64_t last) {
    std::vector<std::byte> found((last - first + 1) * kSectorSize);
    const uint64_t begun = ++clock_;
    expect_ok(image_->read(found, first * kSectorSize));
    const uint64_t ended = ++clock_;
    for (uint64_t sector = first; sector <= last; ++sector) {
      check_sector(sector, std::span(found).subspan((sector - first) * kSectorSize, kSectorSize),
                   begun, ended);
    }
    return found;
  }

  void check_sector(uint64_t sector, std::span<const std::byte> found, uint64_t begun,
                    uint64_t ended) {
    uint64_t number = 0;
    std::memcpy(&number, found.data(), sizeof(number));
    for (size_t at = 0; at < found.size(); at += sizeof(number)) {
      if (std::memcmp(&found[at], &number, sizeof(number)) == 0) continue;
      require(false, fmt::format("sector {} is a mixture", sector));
    }
    require(number < operations_.size(), fmt::format("sector {} holds garbage", sector));
    // The begin of the newest operation that must have been over when the read began.
    uint64_t newest_begin = 0;
    for (const Operation& operation : operations_) {
      if (operation.ended < begun && operation.first <= sector && sector <= operation.last) {
        newest_begin = std::max<uint64_t>(newest_begin, operation.begun);
      }
    }
    // Zeros may come from any of the zeroes.
    bool explained = false;
    for (size_t i = 0; i < operations_.size() && !explained; ++i) {
      const Operation& operation = operations_[i];
      if (operation.begun > ended || sector < operation.first || sector > operation.last) continue;
      if (number == 0 ? !operation.zeroes : i != number) continue;
      explained = operation.ended >= newest_begin;
    }
    require(explained,
            fmt::format("sector {} holds {}, which was overwritten before", sector, number));
  }

  Random random_;
  MemoryFileSystem fs_;
  ImageConfig config_;
  uint64_t sectors_ = 0;
  std::unique_ptr<Image> image_;
  std::atomic<uint64_t> clock_ = 0;
  std::vector<Operation> operations_;
};

TEST(ConcurrentOverlap, Append) {
  for_each_seed(150, [](uint64_t seed) { Contest(seed, UpperKind::append).run(); });
}

TEST(ConcurrentOverlap, Sparse) {
  for_each_seed(150, [](uint64_t seed) { Contest(seed, UpperKind::sparse).run(); });
}

}  // namespace
}  // namespace obd::test
