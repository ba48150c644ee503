#include "test/support/sparse_bytes.h"

#include <algorithm>
#include <cstring>

#include "core/base/units.h"

namespace obd::test {

size_t SparseBytes::read(std::span<std::byte> out, uint64_t offset) const {
  if (offset >= size_) return 0;
  const size_t length = static_cast<size_t>(std::min<uint64_t>(out.size(), size_ - offset));
  size_t done = 0;
  while (done < length) {
    const uint64_t at = offset + done;
    const size_t within = static_cast<size_t>(at % kPageSize);
    const size_t count = std::min(length - done, static_cast<size_t>(kPageSize) - within);
    const auto page = pages_.find(at / kPageSize);
    if (page == pages_.end()) {
      std::memset(out.data() + done, 0, count);
    } else {
      std::memcpy(out.data() + done, page->second->data() + within, count);
    }
    done += count;
  }
  return length;
}

SparseBytes::Page& SparseBytes::page_for_writing(uint64_t number) {
  std::shared_ptr<Page>& page = pages_[number];
  if (!page) {
    page = std::make_shared<Page>();
  } else if (page.use_count() > 1) {
    page = std::make_shared<Page>(*page);
  }
  return *page;
}

void SparseBytes::write(std::span<const std::byte> data, uint64_t offset) {
  size_ = std::max(size_, data.empty() ? 0 : offset + data.size());
  while (!data.empty()) {
    const size_t within = static_cast<size_t>(offset % kPageSize);
    const size_t count = std::min(data.size(), static_cast<size_t>(kPageSize) - within);
    std::memcpy(page_for_writing(offset / kPageSize).data() + within, data.data(), count);
    data = data.subspan(count);
    offset += count;
  }
}

void SparseBytes::zero_within_page(uint64_t begin, uint64_t end) {
  if (begin == end || !pages_.contains(begin / kPageSize)) return;
  std::memset(page_for_writing(begin / kPageSize).data() + begin % kPageSize, 0, end - begin);
}

void SparseBytes::truncate(uint64_t size) {
  if (size < size_) {
    const uint64_t kept_pages = size / kPageSize + (size % kPageSize != 0 ? 1 : 0);
    pages_.erase(pages_.lower_bound(kept_pages), pages_.end());
    if (size % kPageSize != 0) zero_within_page(size, kept_pages * kPageSize);
  }
  size_ = size;
}

void SparseBytes::punch(ByteRange range) {
  if (range.offset >= size_) return;
  const uint64_t begin = range.offset;
  // As Linux does it: a range that goes past the end takes the last block whole.
  const bool past_end = range.length > size_ - begin;
  const uint64_t end = past_end ? align_up(size_, kPageSize) : begin + range.length;
  const uint64_t first_whole = align_up(begin, kPageSize);
  const uint64_t last_whole = align_down(end, kPageSize);
  if (first_whole > last_whole) return zero_within_page(begin, end);
  zero_within_page(begin, first_whole);
  zero_within_page(last_whole, end);
  pages_.erase(pages_.lower_bound(first_whole / kPageSize),
               pages_.lower_bound(last_whole / kPageSize));
}

uint64_t SparseBytes::writable_with(uint64_t new_pages, uint64_t offset, uint64_t length) const {
  for (uint64_t at = offset; at < offset + length; at = align_down(at, kPageSize) + kPageSize) {
    if (pages_.contains(at / kPageSize)) continue;
    if (new_pages == 0) return at - offset;
    --new_pages;
  }
  return length;
}

std::optional<ByteRange> SparseBytes::next_data(uint64_t offset) const {
  if (offset >= size_) return std::nullopt;
  auto page = pages_.lower_bound(offset / kPageSize);
  if (page == pages_.end()) return std::nullopt;
  const uint64_t begin = std::max(offset, page->first * kPageSize);
  uint64_t last = page->first;
  while (++page != pages_.end() && page->first == last + 1) last = page->first;
  return ByteRange{begin, std::min(size_, (last + 1) * kPageSize) - begin};
}

bool SparseBytes::operator==(const SparseBytes& other) const {
  return size_ == other.size_ &&
         std::equal(pages_.begin(), pages_.end(), other.pages_.begin(), other.pages_.end(),
                    [](const auto& a, const auto& b) {
                      return a.first == b.first && (a.second == b.second || *a.second == *b.second);
                    });
}

}  // namespace obd::test
