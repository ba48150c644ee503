#include "core/zfile/block_compressor.h"

#include <algorithm>
#include <cerrno>
#include <new>
#include <system_error>
#include <utility>

#include "core/base/units.h"
#include "core/format/little_endian.h"
#include "core/format/zfile.h"

namespace obd {

struct BlockCompressor::Batch {
  std::vector<std::byte> content;
  std::vector<std::byte> stored;
  std::vector<uint32_t> lengths;
  Result<void> outcome;
  bool done = false;

  Result<void> compress(Compressor& compressor, size_t block_size) {
    lengths.clear();
    size_t end = 0;
    for (size_t at = 0; at < content.size(); at += block_size) {
      const auto block = std::span(content).subspan(at, std::min(block_size, content.size() - at));
      stored.resize(end + compressor.bound(block.size()) + zfile::kChecksumSize);
      const auto room = std::span(stored).subspan(end);
      OBD_TRY_ASSIGN(const size_t size,
                     compressor.compress(block, room.first(room.size() - zfile::kChecksumSize)));
      store_le(room.subspan(size).first<zfile::kChecksumSize>(),
               zfile::block_checksum(room.first(size)));
      lengths.push_back(static_cast<uint32_t>(size + zfile::kChecksumSize));
      end += lengths.back();
    }
    stored.resize(end);
    return {};
  }

  // A thread has nowhere to throw to.
  void run(Compressor& compressor, size_t block_size) {
    try {
      outcome = compress(compressor, block_size);
    } catch (const std::bad_alloc&) {
      outcome = fail(ENOMEM, "there is no memory to compress {} bytes", content.size());
    }
  }
};

BlockCompressor::BlockCompressor(const Options& options, Sink sink)
    : options_(options),
      sink_(std::move(sink)),
      batch_size_(std::max<size_t>(kBatchSize, options.block_size)) {}

Result<std::unique_ptr<BlockCompressor>> BlockCompressor::create(const Options& options,
                                                                 Sink sink) {
  std::unique_ptr<BlockCompressor> made(new BlockCompressor(options, std::move(sink)));
  OBD_TRY_ASSIGN(Compressor own, Compressor::create(options.compression, options.level));
  made->own_ = std::make_unique<Compressor>(std::move(own));
  const unsigned count =
      options.threads != 0 ? options.threads : std::thread::hardware_concurrency();
  // One thread beside this one would only wait for it, or it for the thread.
  if (count > 1) made->start_threads(count);
  made->most_in_flight_ = 2 * made->threads_.size();
  return made;
}

// As many as the host lets us have; without any, the work is done in add().
void BlockCompressor::start_threads(unsigned count) {
  while (threads_.size() < count) {
    auto compressor = Compressor::create(options_.compression, options_.level);
    if (!compressor) return;
    try {
      threads_.emplace_back(&BlockCompressor::work, this, std::move(*compressor));
    } catch (const std::system_error&) {
      return;
    }
  }
}

BlockCompressor::~BlockCompressor() {
  {
    const MutexLock guard(mutex_);
    stopping_ = true;
  }
  work_to_do_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void BlockCompressor::work(Compressor compressor) {
  MutexLock lock(mutex_);
  for (;;) {
    work_to_do_.wait(lock, [&] {
      mutex_.assert_held();
      return stopping_ || !waiting_.empty();
    });
    if (stopping_) return;
    Batch* const batch = waiting_.front();
    waiting_.pop_front();
    lock.unlock();
    batch->run(compressor, options_.block_size);
    lock.lock();
    batch->done = true;
    batch_done_.notify_one();
  }
}

Result<void> BlockCompressor::add(std::span<const std::byte> content) {
  while (!content.empty()) {
    if (!filling_) {
      if (spare_.empty()) {
        filling_ = std::make_unique<Batch>();
        filling_->content.reserve(batch_size_);
      } else {
        filling_ = std::move(spare_.back());
        spare_.pop_back();
      }
    }
    std::vector<std::byte>& filling = filling_->content;
    const size_t count = std::min(content.size(), batch_size_ - filling.size());
    filling.insert(filling.end(), content.begin(), content.begin() + static_cast<ptrdiff_t>(count));
    content = content.subspan(count);
    if (filling.size() == batch_size_) OBD_TRY(submit());
  }
  return {};
}

Result<void> BlockCompressor::submit() {
  Batch* const batch = filling_.get();
  in_flight_.push_back(std::move(filling_));
  if (threads_.empty()) {
    batch->run(*own_, options_.block_size);
    batch->done = true;
    return hand_over_oldest();
  }
  {
    const MutexLock guard(mutex_);
    waiting_.push_back(batch);
  }
  work_to_do_.notify_one();
  return in_flight_.size() < most_in_flight_ ? Result<void>() : hand_over_oldest();
}

Result<void> BlockCompressor::hand_over_oldest() {
  Batch& batch = *in_flight_.front();
  {
    MutexLock lock(mutex_);
    batch_done_.wait(lock, [&] { return batch.done; });
  }
  OBD_TRY(batch.outcome);
  OBD_TRY(sink_(batch.stored, batch.lengths));
  batch.content.clear();
  batch.done = false;
  spare_.push_back(std::move(in_flight_.front()));
  in_flight_.pop_front();
  return {};
}

Result<void> BlockCompressor::finish() {
  if (filling_ && !filling_->content.empty()) OBD_TRY(submit());
  while (!in_flight_.empty()) OBD_TRY(hand_over_oldest());
  return {};
}

}  // namespace obd
