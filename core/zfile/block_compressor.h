// Compresses a stream block by block, on several cores, for writing a ZFile.
//
// What add() is given is cut into batches of whole blocks. Threads compress batches in any order;
// the thread that calls add() hands their outcome to the sink in the order of the content. So the
// output does not depend on the number of threads, and only one thread writes.
//
// Units: bytes. Memory: two batches a thread, each about twice kBatchSize (or one block, if that is
// larger). Thread-safety: none; the threads are its own and end with it. Errors: the sink's, and
// those of the compressor; after one, only destroying is allowed.

#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "core/base/mutex.h"
#include "core/base/result.h"
#include "core/zfile/codec.h"

namespace obd {

class BlockCompressor {
 public:
  static constexpr size_t kBatchSize = size_t{256} << 10;

  struct Options {
    Compression compression = Compression::lz4;  // not none
    int level = 0;
    uint32_t block_size = 0;
    unsigned threads = 0;  // 0: as many as the host has cores
  };

  // Takes the next blocks: their compressed bytes, each with its checksum behind it, in a row, and
  // the stored length of each.
  using Sink = std::function<Result<void>(std::span<const std::byte> stored,
                                          std::span<const uint32_t> lengths)>;

  // EINVAL for a level that the compression does not have.
  static Result<std::unique_ptr<BlockCompressor>> create(const Options& options, Sink sink);
  ~BlockCompressor();
  BlockCompressor(const BlockCompressor&) = delete;
  BlockCompressor& operator=(const BlockCompressor&) = delete;

  Result<void> add(std::span<const std::byte> content);
  // Compresses what is left, the last block perhaps being short, and hands everything to the sink.
  Result<void> finish();

 private:
  struct Batch;

  BlockCompressor(const Options& options, Sink sink);
  void start_threads(unsigned count);
  void work(Compressor compressor);
  Result<void> submit();
  Result<void> hand_over_oldest();

  const Options options_;
  const Sink sink_;
  const size_t batch_size_;
  std::unique_ptr<Compressor> own_;  // for when there are no threads
  size_t most_in_flight_ = 0;

  // Of the calling thread alone:
  std::unique_ptr<Batch> filling_;
  std::deque<std::unique_ptr<Batch>> in_flight_;  // in the order of the content
  std::vector<std::unique_ptr<Batch>> spare_;

  Mutex mutex_;
  Condition work_to_do_;
  Condition batch_done_;
  std::deque<Batch*> waiting_ OBD_GUARDED_BY(mutex_);  // as is Batch::done
  bool stopping_ OBD_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace obd
