// An image that opens can be read, takes writes, zeroes and trims, and has them when it is opened
// again; it never changes a lower.
//
// Input: files, each as one byte (its role), three bytes (its length, little-endian), its bytes.
// Role 0: the next lower; 1: the upper's data; 2: the upper's index.

#include <algorithm>
#include <cerrno>
#include <vector>

#include "core/image/image.h"
#include "test/fuzz/fuzz.h"

namespace {

using namespace obd;

constexpr uint64_t kMostRead = uint64_t{1} << 20;

// The parts of the disk that are looked at: all of a small one, both ends of a large one.
std::vector<std::byte> read_some(const Image& image) {
  const uint64_t length = std::min(image.size(), kMostRead);
  std::vector<std::byte> content(2 * length);
  const auto front = std::span(content).first(length);
  const auto back = std::span(content).last(length);
  if (!image.read(front, 0) || !image.read(back, image.size() - length)) content.clear();
  return content;
}

void use(FileSystem& fs, const ImageConfig& config) {
  std::vector<std::byte> before;
  std::vector<std::byte> changed;
  {
    const auto image = Image::open(fs, config, {});
    if (!image) {
      fuzz::require(!image.error().message.empty(), "an error has a sentence");
      return;
    }
    (void)(*image)->layers();
    before = read_some(**image);
    if (!(*image)->writable() || before.empty()) return;
    const uint64_t size = (*image)->size();
    const std::vector<std::byte> data(std::min<uint64_t>(size, 5000), std::byte{0x5A});
    // A disk may be larger than what its layers can address.
    if (!(*image)->write(data, size - data.size())) return;
    fuzz::require((*image)->zero(0, std::min<uint64_t>(size, 700)).has_value(), "zeroes");
    fuzz::require((*image)->trim(0, std::min<uint64_t>(size, 9000)).has_value(), "trims");
    changed = read_some(**image);
    fuzz::require(!changed.empty(), "what was written can be read");
    fuzz::require((*image)->flush().has_value(), "flushes");
    if (size % 1024 == 0) fuzz::require((*image)->close().has_value(), "closes");
  }
  const auto again = Image::open(fs, config, {});
  fuzz::require(again.has_value(), "what was written opens again");
  fuzz::require(read_some(**again) == changed, "what was written is there");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  test::MemoryFileSystem fs;
  ImageConfig config;
  config.path = "/image/config.v1.json";
  std::vector<std::pair<std::string, std::vector<std::byte>>> lowers;
  bool has_data = false;
  bool has_index = false;
  auto input = fuzz::as_bytes(data, size);
  while (input.size() >= 4) {
    const auto role = std::to_integer<unsigned>(input[0]) % 3;
    size_t length = std::to_integer<size_t>(input[1]) | std::to_integer<size_t>(input[2]) << 8 |
                    std::to_integer<size_t>(input[3]) << 16;
    length = std::min(length, input.size() - 4);
    const auto content = input.subspan(4, length);
    input = input.subspan(4 + length);
    if (role == 0 && lowers.size() < 8) {
      const std::string path = "/image/lower" + std::to_string(lowers.size());
      fuzz::put_file(fs, path, content);
      lowers.emplace_back(path, std::vector<std::byte>(content.begin(), content.end()));
      config.lowers.push_back(path);
    } else if (role == 1 && !has_data) {
      fuzz::put_file(fs, "/image/data", content);
      has_data = true;
    } else if (role == 2 && !has_index) {
      fuzz::put_file(fs, "/image/index", content);
      has_index = true;
    }
  }
  if (has_data) config.upper = UpperConfig{"/image/data", "/image/index"};
  use(fs, config);
  for (const auto& [path, content] : lowers) {
    const auto now = read_whole(fs, path, uint64_t{1} << 24);
    const auto bytes = std::as_bytes(std::span(*now));
    fuzz::require(std::ranges::equal(bytes, content), "a lower never changes");
  }
  return 0;
}
