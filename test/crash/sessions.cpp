#include "test/crash/sessions.h"

#include <algorithm>
#include <vector>

#include "test/support/seeded.h"
#include "test/support/stack_builder.h"

namespace obd::test {
namespace {

constexpr size_t kThreads = 3;
constexpr uint64_t kStripe = 5 * kSectorSize;  // of one thread; no multiple of a block

void change(ModelledImage& image, Random& random, uint64_t offset, uint64_t length) {
  const uint64_t kind = random.below(100);
  const bool fua = random.percent(8);
  if (kind < 65) {
    std::vector<std::byte> data(length);
    random.fill(data);
    expect_ok(image.write(data, offset, fua));
  } else if (kind < 85) {
    ZeroOptions options;
    options.may_trim = random.percent(60);
    options.fua = fua;
    expect_ok(image.zero(offset, length, options));
  } else {
    expect_ok(image.trim(offset, length, fua));
  }
}

}  // namespace

StackOptions small_stack(Random& random, UpperKind kind) {
  StackOptions options;
  options.size = random.between(9, 72) * kSectorSize;
  options.lowers = random.below(3);
  options.kind = kind;
  return options;
}

void random_operation(ModelledImage& image, Random& random) {
  if (random.percent(15)) return expect_ok(image.flush());
  const uint64_t size = image.image().size();
  const uint64_t unit = random.percent(30) ? 1 : random.percent(50) ? kSectorSize : kBlockSize;
  const uint64_t offset = align_down(random.below(size), unit);
  const uint64_t longest = random.percent(60) ? kBlockSize : 4 * kBlockSize;
  const uint64_t length = align_up(random.between(1, longest), unit);
  change(image, random, offset, std::min(length, size - offset));
}

void long_session(ModelledImage& image, Random& random) {
  const uint64_t operations = random.between(5, 40);
  for (uint64_t i = 0; i < operations; ++i) {
    random_operation(image, random);
    if (random.percent(3)) {
      expect_ok(image.close());
      expect_ok(image.open());
    } else if (random.percent(3)) {
      image.drop();
      expect_ok(image.open());
    }
  }
  if (random.percent(40)) expect_ok(image.close());
}

void short_session(ModelledImage& image, Random& random) {
  if (random.percent(30)) expect_ok(image.flush());
  for (uint64_t operations = random.below(8); operations > 0; --operations) {
    random_operation(image, random);
    if (random.percent(15)) expect_ok(image.reclaim_now());
    if (random.percent(15)) expect_ok(image.reclaim_step());
  }
  if (random.percent(40)) expect_ok(image.close());
}

namespace {

void run_stripes(ModelledImage& image, Random& random, bool reclaims) {
  const uint64_t size = image.image().size();
  std::vector<uint64_t> seeds(kThreads);
  for (uint64_t& seed : seeds) seed = random.next();
  run_threads(kThreads + (reclaims ? 1 : 0), [&](size_t thread) {
    if (thread == kThreads) {
      for (int i = 0; i < 6; ++i) {
        expect_ok(image.reclaim_step());
        expect_ok(image.reclaim_now());
      }
      return;
    }
    Random mine(seeds[thread]);
    const uint64_t stripes = (size + kStripe - 1) / kStripe;
    for (int i = 0; i < 15; ++i) {
      if (mine.percent(20)) {
        expect_ok(image.flush());
        continue;
      }
      const uint64_t stripe = mine.below((stripes + kThreads - 1) / kThreads) * kThreads + thread;
      const uint64_t begin = stripe * kStripe;
      if (begin >= size) continue;
      const uint64_t end = std::min(size, begin + kStripe);
      const uint64_t unit = mine.percent(50) ? 1 : kSectorSize;
      const uint64_t offset = align_down(mine.between(begin, end - 1), unit);
      const uint64_t length = mine.percent(50) ? end - offset : mine.between(1, end - offset);
      change(image, mine, offset, align_up(length, unit));
    }
  });
}

}  // namespace

void threads_session(ModelledImage& image, Random& random) {
  run_stripes(image, random, false);
  if (random.percent(30)) expect_ok(image.close());
}

void reclaiming_threads_session(ModelledImage& image, Random& random) {
  run_stripes(image, random, true);
  if (random.percent(50)) expect_ok(image.reclaim_now());
  run_stripes(image, random, true);
  if (random.percent(30)) expect_ok(image.close());
}

void reclaiming_session(ModelledImage& image, Random& random) {
  const uint64_t operations = random.between(20, 90);
  for (uint64_t i = 0; i < operations; ++i) {
    random_operation(image, random);
    if (random.percent(12)) expect_ok(image.reclaim_now());
    if (random.percent(25)) expect_ok(image.reclaim_step());
    if (random.percent(2)) {
      expect_ok(image.close());
      expect_ok(image.open());
    } else if (random.percent(2)) {
      image.drop();
      expect_ok(image.open());
    }
  }
  if (random.percent(40)) expect_ok(image.close());
}

void wearing_session(ModelledImage& image, Random& random) {
  std::vector<std::byte> data(kBlockSize);
  for (int i = 0; i < 300; ++i) {
    random.fill(data);
    expect_ok(image.write(data, 0));
    expect_ok(image.trim(0, kBlockSize));
  }
  random_operation(image, random);
  expect_ok(image.close());
}

void crowded_session(ModelledImage& image, Random& random) {
  expect_ok(image.flush());
  std::vector<std::byte> data(kBlockSize);
  const uint64_t blocks = image.image().size() / kBlockSize;
  for (uint64_t i = random.between(20, 90); i > 0; --i) {
    // A block by turns written and zeroed, so that a sparse layer records each.
    const uint64_t offset = random.below(blocks) * kBlockSize;
    random.fill(data);
    expect_ok(image.write(data, offset));
    expect_ok(image.trim(random.below(blocks) * kBlockSize, kBlockSize));
  }
  expect_ok(image.flush());
}

}  // namespace obd::test
