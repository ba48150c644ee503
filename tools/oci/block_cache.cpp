#include "tools/oci/block_cache.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

namespace obd::oci {

Result<void> BlockCache::check(uint64_t offset, uint64_t length) const {
  if (offset <= disk_.size() && length <= disk_.size() - offset) return {};
  return fail(EINVAL, "the file system wants {} bytes at {}, past the end of its disk, {}", length,
              offset, disk_.size());
}

// A disk need not end with a whole page.
uint64_t BlockCache::page_size(uint64_t number) const {
  return std::min(kPage, disk_.size() - number * kPage);
}

// `whole`: all of it will be overwritten.
Result<BlockCache::Page*> BlockCache::page(uint64_t number, bool whole) {
  const auto found = pages_.find(number);
  if (found != pages_.end()) return &found->second;
  OBD_TRY(make_room());
  Page& added = pages_[number];
  if (!whole) {
    if (auto got = disk_.read(std::span(added.bytes).first(page_size(number)), number * kPage);
        !got) {
      pages_.erase(number);
      return std::unexpected(std::move(got).error());
    }
  }
  return &added;
}

Result<void> BlockCache::make_room() {
  if (pages_.size() < kMostPages) return {};
  OBD_TRY(write_dirty());
  pages_.clear();
  return {};
}

Result<void> BlockCache::read(std::span<std::byte> out, uint64_t offset) {
  OBD_TRY(check(offset, out.size()));
  while (!out.empty()) {
    const uint64_t within = offset % kPage;
    const size_t size = std::min<size_t>(out.size(), kPage - within);
    OBD_TRY_ASSIGN(const Page* from, page(offset / kPage, false));
    std::memcpy(out.data(), &from->bytes[within], size);
    out = out.subspan(size);
    offset += size;
  }
  return {};
}

Result<void> BlockCache::write(std::span<const std::byte> data, uint64_t offset) {
  OBD_TRY(check(offset, data.size()));
  while (!data.empty()) {
    const uint64_t within = offset % kPage;
    const size_t size = std::min<size_t>(data.size(), kPage - within);
    OBD_TRY_ASSIGN(Page* const to, page(offset / kPage, size == page_size(offset / kPage)));
    std::memcpy(&to->bytes[within], data.data(), size);
    to->dirty = true;
    data = data.subspan(size);
    offset += size;
  }
  return {};
}

Result<void> BlockCache::write_through(std::span<const std::byte> data, uint64_t offset) {
  OBD_TRY(check(offset, data.size()));
  const uint64_t head = std::min<uint64_t>((kPage - offset % kPage) % kPage, data.size());
  if (head > 0) OBD_TRY(write(data.first(head), offset));
  data = data.subspan(head);
  offset += head;
  const auto whole = data.first(align_down(data.size(), kPage));
  if (!whole.empty()) {
    for (uint64_t at = 0; at < whole.size(); at += kPage) pages_.erase((offset + at) / kPage);
    OBD_TRY(disk_.write(whole, offset));
  }
  return write(data.subspan(whole.size()), offset + whole.size());
}

Result<void> BlockCache::write_dirty() {
  std::vector<uint64_t> dirty;
  for (const auto& [number, page] : pages_) {
    if (page.dirty) dirty.push_back(number);
  }
  std::ranges::sort(dirty);
  constexpr size_t kMostAtOnce = 256;
  std::vector<std::byte> run;
  uint64_t run_start = 0;
  const auto write_run = [&]() -> Result<void> {
    if (!run.empty()) OBD_TRY(disk_.write(run, run_start * kPage));
    run.clear();
    return {};
  };
  std::array<std::byte, kPage> present;
  for (const uint64_t number : dirty) {
    Page& page = pages_.at(number);
    const auto wanted = std::span(page.bytes).first(page_size(number));
    OBD_TRY(disk_.read(std::span(present).first(wanted.size()), number * kPage));
    page.dirty = false;
    if (std::memcmp(present.data(), wanted.data(), wanted.size()) == 0) continue;
    if (run_start + run.size() / kPage != number || run.size() >= kMostAtOnce * kPage) {
      OBD_TRY(write_run());
      run_start = number;
    }
    run.insert(run.end(), wanted.begin(), wanted.end());
  }
  return write_run();
}

Result<void> BlockCache::flush() {
  OBD_TRY(write_dirty());
  return disk_.flush();
}

}  // namespace obd::oci
