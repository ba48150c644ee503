// What one execution of a target may take: so many seconds of processor time, and so much heap for
// the bytes it was given. More ends the fuzzer, which keeps the input.
//
// The heap is what the allocator of the sanitizer has handed out since the execution began, the
// target's own files and buffers included.

#pragma once

#include <sanitizer/allocator_interface.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>

namespace obd::fuzz {

class Bounds {
 public:
  // The same with the sanitizers as without them, although they slow a target down several times.
  static constexpr double kMostSeconds = 1;
  static constexpr size_t kHeapOfAnyInput = size_t{64} << 20;
  static constexpr size_t kHeapPerByte = 64;

  // `file_bytes`: how large the input's files are together.
  explicit Bounds(size_t file_bytes) : begin_(now()), file_bytes_(file_bytes) {
    static const int kInstalled = __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
    if (kInstalled == 0) fail("no hook for the heap");
    live_ = peak_ = 0;
  }
  Bounds(const Bounds&) = delete;
  Bounds& operator=(const Bounds&) = delete;

  ~Bounds() {
    const double seconds = now() - begin_;
    const int64_t most =
        static_cast<int64_t>(kHeapOfAnyInput) + static_cast<int64_t>(file_bytes_ * kHeapPerByte);
    if (peak_ > most) {
      std::fprintf(stderr, "%lld bytes of heap for %zu bytes of files\n",
                   static_cast<long long>(peak_), file_bytes_);
      fail("memory follows the files' size");
    }
    if (seconds > kMostSeconds) {
      std::fprintf(stderr, "%.2f s of processor time\n", seconds);
      fail("nothing takes long");
    }
  }

 private:
  [[noreturn]] static void fail(const char* promise) {
    std::fprintf(stderr, "broken promise: %s\n", promise);
    std::abort();
  }

  static double now() {
    timespec time{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  }

  static void on_malloc(const volatile void* /*at*/, size_t size) {
    const int64_t live = live_ += static_cast<int64_t>(size);
    for (int64_t peak = peak_; peak < live && !peak_.compare_exchange_weak(peak, live);) {
    }
  }
  static void on_free(const volatile void* at) {
    if (at == nullptr) return;
    live_ -= static_cast<int64_t>(__sanitizer_get_allocated_size(const_cast<const void*>(at)));
  }

  inline static std::atomic<int64_t> live_ = 0;  // bytes, since the execution began
  inline static std::atomic<int64_t> peak_ = 0;
  const double begin_;
  const size_t file_bytes_;
};

}  // namespace obd::fuzz
