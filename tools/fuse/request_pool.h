// The requests that a worker may have in flight, and their memory: a fixed number, made once.
//
// Every request has a small buffer of its own. Larger data takes one of few large blocks; the
// worker also reads /dev/fuse into a large block, and hands that on to the request which it turns
// out to be when its data is large, so that large writes are never copied. Memory is touched only
// when it is used.
//
// Thread-safety: none, one pool is one worker's.

#pragma once

#include <fuse_lowlevel.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace obd::fuse {

class Worker;

struct Request {
  enum class Kind : uint8_t { read, write, flush, zero };
  enum class State : uint8_t {
    free,
    waiting,  // to be sent, or sent again
    sent,
  };

  State state = State::free;
  Kind kind = Kind::read;
  bool keep_space = false;  // zero: the range stays allocated
  fuse_req_t caller = nullptr;
  // What the server has still to do, in bytes.
  uint64_t offset = 0;
  uint64_t length = 0;
  // What the caller asked for: of a read, the part of the blocks read.
  uint32_t skip = 0;
  uint32_t wanted = 0;

  std::byte* data = nullptr;   // of a read or write; in one of the following
  std::byte* small = nullptr;  // kSmallSize bytes
  std::byte* large = nullptr;  // a large block, or null
  Worker* worker = nullptr;
};

class RequestPool {
 public:
  static constexpr size_t kMaxData = size_t{1} << 20;  // of one read or write
  static constexpr size_t kSmallSize = size_t{32} << 10;
  // Room for the kernel's headers before the data of a write, or for the rest of the first and the
  // last block of a read.
  static constexpr size_t kLargeSize = kMaxData + (size_t{128} << 10);

  RequestPool(Worker& worker, size_t requests, size_t large_blocks)
      : requests_(requests),
        small_(std::make_unique_for_overwrite<std::byte[]>(requests * kSmallSize)),
        large_(std::make_unique_for_overwrite<std::byte[]>(large_blocks * kLargeSize)) {
    for (size_t i = 0; i < requests; ++i) {
      requests_[i].worker = &worker;
      requests_[i].small = small_.get() + i * kSmallSize;
      free_requests_.push_back(&requests_[i]);
    }
    for (size_t i = 0; i < large_blocks; ++i) {
      free_large_.push_back(large_.get() + i * kLargeSize);
    }
  }

  [[nodiscard]] bool has_request() const { return !free_requests_.empty(); }

  // has_request() must be true. Its state is waiting.
  Request& take() {
    Request& request = *free_requests_.back();
    free_requests_.pop_back();
    request.state = Request::State::waiting;
    return request;
  }

  // A large block, or null when there is none.
  std::byte* take_large() {
    if (free_large_.empty()) return nullptr;
    std::byte* const block = free_large_.back();
    free_large_.pop_back();
    return block;
  }

  // Gives back a request with what it holds.
  void give_back(Request& request) {
    if (request.large != nullptr) free_large_.push_back(request.large);
    request.large = nullptr;
    request.state = Request::State::free;
    free_requests_.push_back(&request);
  }

  std::vector<Request>& all() { return requests_; }

 private:
  std::vector<Request> requests_;
  std::unique_ptr<std::byte[]> small_;
  std::unique_ptr<std::byte[]> large_;
  std::vector<Request*> free_requests_;
  std::vector<std::byte*> free_large_;
};

}  // namespace obd::fuse
