// What an image counts about its requests. Thread-safety: atomics, read one by one.

#pragma once

#include <atomic>
#include <cstdint>

#include "core/image/image.h"

namespace obd {

struct Image::Counters {
  using Counter = std::atomic<uint64_t>;
  Counter reads = 0, read_bytes = 0;
  Counter writes = 0, write_bytes = 0;
  Counter zeroes = 0, zero_bytes = 0;
  Counter flushes = 0;

  static void count(Counter& requests, Counter& bytes, uint64_t length) {
    requests.fetch_add(1, std::memory_order_relaxed);
    bytes.fetch_add(length, std::memory_order_relaxed);
  }
};

}  // namespace obd
