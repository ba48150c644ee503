#include "tools/snapshotter/direct_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>

#include "core/base/units.h"

namespace obd::snapshotter {
namespace {

constexpr uint64_t kWindow = uint64_t{1} << 20;

}  // namespace

Result<DirectReader> DirectReader::open(const std::string& path) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  if (!fd && errno == EINVAL) fd = Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "{}: cannot be opened", path);
  auto* const buffer = static_cast<std::byte*>(std::aligned_alloc(kBlockSize, kWindow));
  if (buffer == nullptr) throw std::bad_alloc();
  return DirectReader(path, std::move(fd), buffer);
}

Result<std::span<const std::byte>> DirectReader::read(uint64_t offset, uint64_t length) const {
  const uint64_t start = align_down(offset, kBlockSize);
  const uint64_t skipped = offset - start;
  ssize_t got = 0;
  do {
    got = ::pread(fd_.get(), buffer_.get(), kWindow, static_cast<off_t>(start));
  } while (got < 0 && errno == EINTR);
  if (got < 0) return fail_errno(errno, "{}: cannot be read at {}", path_, start);
  if (static_cast<uint64_t>(got) <= skipped) return fail(EIO, "{}: ends at {}", path_, start);
  const uint64_t there = align_down(static_cast<uint64_t>(got) - skipped, kSectorSize);
  const uint64_t wanted = std::min(there, length);
  if (wanted == 0) return fail(EIO, "{}: ends at {}", path_, start);
  return std::span<const std::byte>(buffer_.get() + skipped, static_cast<size_t>(wanted));
}

}  // namespace obd::snapshotter
