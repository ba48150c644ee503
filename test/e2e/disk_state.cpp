#include "test/e2e/disk_state.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace obd::test {

namespace {

constexpr uint64_t kReadSize = 1U << 20;  // bytes
constexpr uint64_t kWrongCellsShown = 10;

void sync_path(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd == -1 || fsync(fd) == -1) die("{}: cannot sync: {}", path, std::strerror(errno));
  close(fd);
}

}  // namespace

DiskState load_state(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) die("{}: cannot open", path);
  DiskState state(static_cast<size_t>(file.tellg()) / sizeof(Stamp));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(state.data()),
            static_cast<std::streamsize>(state.size() * sizeof(Stamp)));
  if (!file) die("{}: cannot read", path);
  return state;
}

void save_state(const std::string& path, const DiskState& state) {
  const std::string temporary = path + ".new";
  std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(state.data()),
             static_cast<std::streamsize>(state.size() * sizeof(Stamp)));
  file.close();
  if (!file) die("{}: cannot write", temporary);
  sync_path(temporary);
  if (std::rename(temporary.c_str(), path.c_str()) == -1)
    die("{}: cannot rename: {}", temporary, std::strerror(errno));
  sync_path(std::filesystem::absolute(path).parent_path());
}

DiskState check_disk(NbdConnection& connection, const AllowedStamps& allowed) {
  if (connection.size() != allowed.size() * kCellSize)
    die("the disk has {} bytes, expected {}", connection.size(), allowed.size() * kCellSize);
  DiskState state(allowed.size());
  std::vector<std::byte> bytes(kReadSize);
  uint64_t wrong = 0;
  for (uint64_t cell = 0; cell < state.size(); ++cell) {
    const uint64_t at = cell * kCellSize % kReadSize;
    if (at == 0)
      connection.read_now(
          std::span(bytes).first(std::min<uint64_t>(kReadSize, (state.size() - cell) * kCellSize)),
          cell * kCellSize);
    const auto found = stamp_of_cell(std::span(bytes).subspan(at, kCellSize), cell);
    if (found && std::ranges::find(allowed[cell], *found) != allowed[cell].end()) {
      state[cell] = *found;
    } else if (++wrong <= kWrongCellsShown) {
      fmt::print(stderr, "cell {} (byte {}): found {}, expected one of {}\n", cell,
                 cell * kCellSize,
                 found ? fmt::to_string(*found) : "neither zeros nor anything written there",
                 fmt::join(allowed[cell], " "));
    }
  }
  if (wrong != 0) die("{} of {} cells are wrong", wrong, state.size());
  fmt::print("all {} cells are right\n", state.size());
  return state;
}

uint64_t number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) die("not a number: {}", text);
  return value;
}

}  // namespace obd::test
