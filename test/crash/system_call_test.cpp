// The real file system under system calls that are interrupted, cut short and made to fail, each
// of a scripted session in turn: the request that needed a failed call reports it and no other
// does; interruptions and short transfers are not noticed at all; after a failed sync no later one
// claims that the same data is stable; and what is left opens and holds what was written.
//
// The linker puts the functions __wrap_NAME below in front of libc's (CMakeLists.txt lists them),
// which works under the sanitizers, too.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdarg>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>

#include "core/image/image.h"
#include "core/layer/layer_writer.h"
#include "test/support/random.h"
#include "test/support/seeded.h"

namespace obd::test {
namespace {

enum class Call { open, read, write, sync, truncate, punch, rename, remove, sync_folder };
constexpr size_t kCalls = 9;

enum class Trouble {
  interrupted,  // EINTR, several times over
  cut_short,    // moves less than it was asked for
  stops,        // moves less than it was asked for, and the next one fails
  fails,        // and does nothing
};

struct SystemFault {
  Call call = Call::write;
  Trouble trouble = Trouble::fails;
  int code = EIO;    // of stops and fails
  uint64_t nth = 1;  // of these calls
};

// What this thread's system calls meet.
class Meddler {
 public:
  explicit Meddler(std::optional<SystemFault> fault = std::nullopt) : fault_(fault) {}

  [[nodiscard]] uint64_t count(Call call) const { return counts_.at(static_cast<size_t>(call)); }
  // How many calls have failed for good.
  [[nodiscard]] uint64_t failures() const { return failures_; }
  [[nodiscard]] bool has_met() const { return met_; }
  void let_be() { fault_.reset(); }

  // The errno to fail with, or 0. `length`, if it is not null, may become less. `overwritten`:
  // where a write begins, if the file has all of its range already.
  int meet(Call call, size_t* length, std::optional<uint64_t> overwritten) {
    const uint64_t seen = ++counts_.at(static_cast<size_t>(call));
    if (!fault_ || fault_->call != call || seen < fault_->nth) return 0;
    const uint64_t after = seen - fault_->nth;
    if (after == 0) met_ = true;
    switch (fault_->trouble) {
      case Trouble::interrupted:
        return after < kInterruptions ? EINTR : 0;
      case Trouble::cut_short:
        if (after == 0) shorten(length, std::nullopt);
        return 0;
      case Trouble::stops:
        if (after == 0 && shorten(length, overwritten)) return 0;
        if (after > 1 || failures_ > 0) return 0;
        ++failures_;
        return fault_->code;
      case Trouble::fails:
        if (after > 0) return 0;
        ++failures_;
        return fault_->code;
    }
    return 0;
  }

 private:
  static constexpr uint64_t kInterruptions = 3;

  // To about half. A sector that is there is written as a whole or not at all.
  static bool shorten(size_t* length, std::optional<uint64_t> overwritten) {
    if (length == nullptr || *length < 2) return false;
    const size_t half = *length / 2 - (*length > 64 ? 5 : 0);
    const uint64_t begin = overwritten.value_or(0);
    const uint64_t end = overwritten ? align_down(begin + half, kSectorSize) : half;
    if (end <= begin) return false;
    *length = end - begin;
    return true;
  }

  std::optional<SystemFault> fault_;
  std::array<uint64_t, kCalls> counts_ = {};
  uint64_t failures_ = 0;
  bool met_ = false;
};

thread_local Meddler* meddler = nullptr;  // null: nobody meddles

// True when the call is to fail; errno says why.
bool fails(Call call, size_t* length = nullptr, std::optional<uint64_t> overwritten = {}) {
  if (meddler == nullptr) return false;
  const int code = meddler->meet(call, length, overwritten);
  if (code == 0) return false;
  errno = code;
  return true;
}

}  // namespace
}  // namespace obd::test

using obd::test::Call;
using obd::test::fails;

extern "C" {

int __real_open(const char* path, int flags, ...);
ssize_t __real_pread(int fd, void* data, size_t length, off_t offset);
ssize_t __real_pwrite(int fd, const void* data, size_t length, off_t offset);
int __real_ftruncate(int fd, off_t size);
int __real_fallocate(int fd, int mode, off_t offset, off_t length);
int __real_rename(const char* from, const char* to);
int __real_unlink(const char* path);

int __wrap_open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & O_CREAT) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, mode_t);
    va_end(arguments);
  }
  return fails(Call::open) ? -1 : __real_open(path, flags, mode);
}
ssize_t __wrap_pread(int fd, void* data, size_t length, off_t offset) {
  return fails(Call::read, &length) ? -1 : __real_pread(fd, data, length, offset);
}
ssize_t __wrap_pwrite(int fd, const void* data, size_t length, off_t offset) {
  struct stat status{};
  std::optional<uint64_t> overwritten;
  if (fstat(fd, &status) == 0 && status.st_size >= offset + static_cast<off_t>(length)) {
    overwritten = static_cast<uint64_t>(offset);
  }
  if (fails(Call::write, &length, overwritten)) return -1;
  return __real_pwrite(fd, data, length, offset);
}
int __wrap_ftruncate(int fd, off_t size) {
  return fails(Call::truncate) ? -1 : __real_ftruncate(fd, size);
}
int __wrap_fallocate(int fd, int mode, off_t offset, off_t length) {
  return fails(Call::punch) ? -1 : __real_fallocate(fd, mode, offset, length);
}
int __wrap_rename(const char* from, const char* to) {
  return fails(Call::rename) ? -1 : __real_rename(from, to);
}
int __wrap_unlink(const char* path) { return fails(Call::remove) ? -1 : __real_unlink(path); }
// Nobody cuts the power, so the device need not be waited for.
int __wrap_fdatasync(int /*fd*/) { return fails(Call::sync) ? -1 : 0; }
int __wrap_fsync(int /*fd*/) { return fails(Call::sync_folder) ? -1 : 0; }

}  // extern "C"

namespace obd::test {
namespace {

using Content = std::vector<std::byte>;

constexpr uint64_t kDiskSize = 96 * 1024 + kSectorSize;
constexpr size_t kSteps = 20;

struct Step {
  enum class Kind { write, zero, trim, read, flush, reopen, close } kind = Kind::write;
  uint64_t offset = 0;
  uint64_t length = 0;
  bool fua = false;
};

std::vector<Step> write_script(Random& random) {
  std::vector<Step> script(kSteps);
  for (size_t i = 0; i < script.size(); ++i) {
    Step& step = script[i];
    const uint64_t kind = random.below(100);
    step.kind = kind < 50   ? Step::Kind::write
                : kind < 62 ? Step::Kind::zero
                : kind < 70 ? Step::Kind::trim
                : kind < 80 ? Step::Kind::read
                            : Step::Kind::flush;
    if (i == kSteps / 2) step.kind = Step::Kind::reopen;
    if (i == kSteps - 1) step.kind = Step::Kind::close;
    const uint64_t unit = random.percent(30) ? 1 : random.percent(50) ? kSectorSize : kBlockSize;
    step.offset = align_down(random.below(kDiskSize), unit);
    step.length =
        std::min(kDiskSize - step.offset, align_up(random.between(1, 3 * kBlockSize), unit));
    step.fua = random.percent(15);
  }
  return script;
}

// One folder of the host, one script, and the trouble that it runs into.
class Trial {
 public:
  Trial(uint64_t seed, UpperKind kind, std::optional<SystemFault> fault)
      : random_(seed), fault_(fault), meddler_(fault) {
    std::string name = testing::TempDir() + "obd-calls-XXXXXX";
    require(::mkdtemp(name.data()) != nullptr, "cannot make " + name);
    folder_ = name;
    make_image(kind);
    script_ = write_script(random_);
  }
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;
  ~Trial() {
    meddler = nullptr;
    image_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  // Returns what the calls were.
  Meddler run() {
    meddler = &meddler_;
    const uint64_t failures = meddler_.failures();
    const auto opened = reopen();
    require(opened || meddler_.failures() > failures, "opening fails for no reason");
    for (size_t i = 0; i < script_.size(); ++i) {
      try {
        run_step(script_[i]);
      } catch (const std::runtime_error& error) {
        throw std::runtime_error(fmt::format("step {}: {}", i, error.what()));
      }
    }
    meddler = nullptr;
    require(!fault_ || meddler_.has_met(), "the session did not get to that call");
    check_what_is_left();
    return meddler_;
  }

 private:
  void make_image(UpperKind kind) {
    config_.path = folder_ + "/config.v1.json";
    config_.lowers = {folder_ + "/lower"};
    config_.upper = UpperConfig{folder_ + "/data", folder_ + "/index"};
    newest_.resize(kDiskSize);
    random_.fill(newest_);
    auto& fs = posix_file_system();
    LayerOptions lower;
    lower.virtual_size = kDiskSize;
    const auto writer = expect_value(LayerWriter::create(fs, config_.lowers[0], lower));
    expect_ok(writer->append_data(Sectors(), newest_));
    expect_ok(writer->finish());
    NewLayer layer;
    layer.kind = kind;
    layer.virtual_size = kDiskSize;
    layer.uuid = Uuid::random();
    expect_ok(create_writable_layer(fs, config_.upper->data, config_.upper->index, layer));
    since_flush_ = {newest_};
  }

  Result<std::unique_ptr<Image>> open() const {
    return Image::open(posix_file_system(), config_, {});
  }

  // As if the server had been killed. A failed attempt changes nothing, so the second finds all.
  Result<void> reopen() {
    image_.reset();
    auto opened = open();
    image_ = opened ? std::move(*opened) : expect_value(open());
    return opened ? Result<void>() : std::unexpected<Error>(opened.error());
  }

  Content read_all() const {
    Meddler* const saved = std::exchange(meddler, nullptr);
    Content content(kDiskSize);
    const auto read = image_->read(content, 0);
    meddler = saved;
    expect_ok(read);
    return content;
  }

  Result<void> execute(const Step& step) {
    const auto range = std::span(newest_).subspan(step.offset, step.length);
    Content data(step.length);
    switch (step.kind) {
      case Step::Kind::write: {
        random_.fill(data);
        const auto written = image_->write(data, step.offset, {.fua = step.fua});
        std::ranges::copy(data, range.begin());
        return written;
      }
      case Step::Kind::zero:
      case Step::Kind::trim: {
        std::ranges::fill(range, std::byte{0});
        if (step.kind == Step::Kind::trim) return image_->trim(step.offset, step.length);
        return image_->zero(step.offset, step.length, {.fua = step.fua, .may_trim = step.fua});
      }
      case Step::Kind::read: {
        OBD_TRY(image_->read(data, step.offset));
        require(std::ranges::equal(data, range), "what is read is not what was written");
        return {};
      }
      case Step::Kind::flush:
        return image_->flush();
      case Step::Kind::reopen: {
        auto opened = reopen();
        require(read_only_ || read_all() == newest_, "reopening finds something else");
        if (read_only_) reopened_after_failed_sync();
        return opened;
      }
      case Step::Kind::close:
        return image_->close();
    }
    return {};
  }

  static bool is_change(const Step& step) {
    return step.kind == Step::Kind::write || step.kind == Step::Kind::zero ||
           step.kind == Step::Kind::trim;
  }
  static bool is_flush(const Step& step) {
    return step.kind == Step::Kind::flush || step.kind == Step::Kind::close ||
           (is_change(step) && step.fua && step.kind != Step::Kind::trim);
  }

  void run_step(const Step& step) {
    const Content before = newest_;
    const bool was_read_only = read_only_;
    const uint64_t failures = meddler_.failures();
    const Result<void> result = execute(step);
    const bool failed = meddler_.failures() > failures;
    if (step.kind == Step::Kind::reopen) {
      if (!failed) expect_ok(result);
      if (failed && !result) expect_error(result, fault_->code);
      return;
    }
    if (was_read_only) {
      if (is_change(step)) newest_ = before;
      if (is_change(step)) expect_error(result, EROFS);
      if (is_flush(step)) require(!result, "a sync after a failed one succeeds");
      return;
    }
    if (!failed) {
      expect_ok(result);
    } else if (is_harmless(fault_->call)) {
      if (!result) expect_error(result, fault_->code);
    } else {
      expect_error(result, fault_->code);
    }
    if (!result) settle(step, before);
    if (result && is_flush(step)) since_flush_.clear();
    since_flush_.push_back(newest_);
  }

  // Giving space back, putting away what failed, opening a new log under its name.
  static bool is_harmless(Call call) {
    return call == Call::punch || call == Call::truncate || call == Call::remove ||
           call == Call::open;
  }

  // A failed request leaves each of its sectors old or new, and all others alone. Reading works;
  // writing does unless it cannot be told any more what is stable.
  void settle(const Step& step, const Content& before) {
    const Content found = read_all();
    for (uint64_t at = 0; at < kDiskSize; at += kSectorSize) {
      const auto is = [&](const Content& other) { return same_sector(found, other, at); };
      const bool touched =
          is_change(step) && at + kSectorSize > step.offset && at < step.offset + step.length;
      require(is(before) || (touched && is(newest_)),
              fmt::format("sector {} is wrong after a failed request", at / kSectorSize));
    }
    since_flush_.push_back(newest_);
    newest_ = found;
    const Content byte = {found[0]};
    const auto written = image_->write(byte, 0);
    if (!written) expect_error(written, EROFS);
    read_only_ = !written;
    const bool may_be = fault_->call == Call::sync || fault_->call == Call::rename ||
                        fault_->call == Call::sync_folder || fault_->call == Call::truncate ||
                        fault_->call == Call::open;
    require(may_be || !read_only_, "the image takes no more writes");
    require(fault_->call != Call::sync || read_only_ || !is_flush(step),
            "the image takes writes after a failed sync");
  }

  static bool same_sector(const Content& a, const Content& b, uint64_t at) {
    return std::equal(a.begin() + static_cast<ptrdiff_t>(at),
                      a.begin() + static_cast<ptrdiff_t>(at + kSectorSize),
                      b.begin() + static_cast<ptrdiff_t>(at));
  }

  // Each sector holds what was flushed last, or something newer.
  void reopened_after_failed_sync() {
    newest_ = read_all();
    for (uint64_t at = 0; at < kDiskSize; at += kSectorSize) {
      require(std::ranges::any_of(since_flush_,
                                  [&](const Content& c) { return same_sector(newest_, c, at); }),
              fmt::format("sector {} holds what it never did", at / kSectorSize));
    }
    since_flush_ = {newest_};
    read_only_ = false;
  }

  void check_what_is_left() {
    image_.reset();
    image_ = expect_value(open());
    if (read_only_) reopened_after_failed_sync();
    require(read_all() == newest_, "what was written is not there any more");
    const Content data(3 * kSectorSize, std::byte{0x5A});
    std::ranges::copy(data, newest_.begin() + kSectorSize);
    expect_ok(image_->write(data, kSectorSize));
    expect_ok(image_->close());
    image_.reset();
    for (const std::string& path : {config_.upper->data, config_.upper->index}) {
      require(std::filesystem::file_size(path) % 16 == 0, path + " has a torn end");
    }
    image_ = expect_value(open());
    require(read_all() == newest_, "what was written later is not there any more");
  }

  Random random_;
  std::optional<SystemFault> fault_;
  Meddler meddler_;
  std::string folder_;
  ImageConfig config_;
  std::vector<Step> script_;
  std::unique_ptr<Image> image_;
  Content newest_;
  std::vector<Content> since_flush_;  // all that the disk was since the last flush
  bool read_only_ = false;
};

class SystemCallTest : public testing::TestWithParam<UpperKind> {
 protected:
  // Each call of its kind in turn.
  static void meddle(Call call, Trouble trouble, int code = EIO) {
    for_each_seed(2, [&](uint64_t seed) {
      const uint64_t count = Trial(seed, GetParam(), std::nullopt).run().count(call);
      for (uint64_t nth = 1; nth <= count; ++nth) {
        try {
          Trial(seed, GetParam(), SystemFault{call, trouble, code, nth}).run();
        } catch (const std::runtime_error& error) {
          throw std::runtime_error(fmt::format("call {} of {}: {}", nth, count, error.what()));
        }
      }
    });
  }
};

TEST_P(SystemCallTest, InterruptionsAreNotNoticed) {
  for (const Call call : {Call::open, Call::read, Call::write, Call::sync, Call::truncate,
                          Call::punch, Call::sync_folder}) {
    meddle(call, Trouble::interrupted);
  }
}
TEST_P(SystemCallTest, ShortReadsAreNotNoticed) { meddle(Call::read, Trouble::cut_short); }
TEST_P(SystemCallTest, ShortWritesAreNotNoticed) { meddle(Call::write, Trouble::cut_short); }
TEST_P(SystemCallTest, ReadFails) { meddle(Call::read, Trouble::fails); }
TEST_P(SystemCallTest, ReadStops) { meddle(Call::read, Trouble::stops); }
TEST_P(SystemCallTest, WriteFails) { meddle(Call::write, Trouble::fails); }
TEST_P(SystemCallTest, WriteStops) { meddle(Call::write, Trouble::stops, ENOSPC); }
TEST_P(SystemCallTest, SyncFails) { meddle(Call::sync, Trouble::fails); }
TEST_P(SystemCallTest, SyncFailsForWantOfSpace) { meddle(Call::sync, Trouble::fails, ENOSPC); }
TEST_P(SystemCallTest, TruncateFails) { meddle(Call::truncate, Trouble::fails); }
TEST_P(SystemCallTest, PunchFails) { meddle(Call::punch, Trouble::fails, EOPNOTSUPP); }
TEST_P(SystemCallTest, OpenFails) { meddle(Call::open, Trouble::fails, EMFILE); }
TEST_P(SystemCallTest, RenameFails) { meddle(Call::rename, Trouble::fails); }
TEST_P(SystemCallTest, RemoveFails) { meddle(Call::remove, Trouble::fails); }
TEST_P(SystemCallTest, FolderSyncFails) { meddle(Call::sync_folder, Trouble::fails); }

INSTANTIATE_TEST_SUITE_P(BothKinds, SystemCallTest,
                         testing::Values(UpperKind::append, UpperKind::sparse),
                         [](const auto& parameter) {
                           return parameter.param == UpperKind::append ? "Append" : "Sparse";
                         });

}  // namespace
}  // namespace obd::test
