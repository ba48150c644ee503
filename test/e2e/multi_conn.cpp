// Four connections to one disk: what completes on one is seen by the others.
//
//   multi_conn URI
//
// First in turn: a write on one connection, a flush on another, a read on a third, a zero and a
// trim on the fourth. Then all at once: every connection writes its own stripes while the others
// read theirs, and in the end each one reads what all of them wrote. The disk needs 16 MiB and is
// overwritten. Exit status 0 when everything was right.

#include <fmt/format.h>

#include <cstddef>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "test/e2e/disk_cells.h"
#include "test/e2e/nbd_client.h"

namespace obd::test {
namespace {

constexpr size_t kConnections = 4;
constexpr uint64_t kDiskPart = 16U << 20;  // bytes used
constexpr uint64_t kStripe = 25U << 9;     // bytes; not a multiple of 4 KiB
constexpr uint64_t kStripes = kDiskPart / kStripe;

void write_now(NbdConnection& connection, Stamp stamp, uint64_t offset, uint64_t length,
               uint32_t flags) {
  std::vector<std::byte> data(length);
  fill_cells(data, stamp, offset / kCellSize);
  if (nbd_pwrite(connection.handle(), data.data(), data.size(), offset, flags) == -1)
    die("writing {} bytes at {}: {}", length, offset, nbd_get_error());
}

void expect_stamp(NbdConnection& connection, Stamp stamp, uint64_t offset, uint64_t length) {
  std::vector<std::byte> data(length);
  connection.read_now(data, offset);
  for (uint64_t at = 0; at < length; at += kCellSize) {
    const uint64_t cell = (offset + at) / kCellSize;
    const auto found = stamp_of_cell(std::span(data).subspan(at, kCellSize), cell);
    if (!found) die("cell {}: neither zeros nor anything written there", cell);
    if (*found != stamp) die("cell {}: expected stamp {}, found {}", cell, stamp, *found);
  }
}

void check(int result, const char* what) {
  if (result == -1) die("{}: {}", what, nbd_get_error());
}

void use_in_turn(std::span<NbdConnection> connections) {
  constexpr uint64_t kAt = 1U << 20;
  constexpr uint64_t kLength = 64U << 10;
  for (Stamp stamp = 1; stamp <= 64; ++stamp) {
    const uint64_t at = kAt + stamp * kCellSize;
    NbdConnection& writer = connections[stamp % kConnections];
    NbdConnection& flusher = connections[(stamp + 1) % kConnections];
    NbdConnection& reader = connections[(stamp + 2) % kConnections];
    NbdConnection& zeroer = connections[(stamp + 3) % kConnections];
    write_now(writer, stamp, at, kLength, stamp % 8 == 0 ? LIBNBD_CMD_FLAG_FUA : 0U);
    check(nbd_flush(flusher.handle(), 0), "flush");
    expect_stamp(reader, stamp, at, kLength);
    check(nbd_zero(zeroer.handle(), kLength / 4, at, stamp % 2 == 0 ? LIBNBD_CMD_FLAG_NO_HOLE : 0U),
          "zero");
    check(nbd_trim(zeroer.handle(), kLength / 4, at + kLength / 2, 0), "trim");
    expect_stamp(reader, kZeroStamp, at, kLength / 4);
    expect_stamp(flusher, stamp, at + kLength / 4, kLength / 4);
    expect_stamp(writer, kZeroStamp, at + kLength / 2, kLength / 4);
    expect_stamp(writer, stamp, at + kLength * 3 / 4, kLength / 4);
  }
}

Stamp stamp_of_stripe(uint64_t stripe, uint64_t round) { return 1'000'000 + stripe * 100 + round; }

// Writes every fourth stripe twice, reading its own back in between: stripes of different
// connections touch, so that neighbours share host blocks.
void write_stripes(NbdConnection& connection, size_t number) {
  for (uint64_t round = 0; round < 2; ++round) {
    for (uint64_t stripe = number; stripe < kStripes; stripe += kConnections) {
      const Stamp stamp = stamp_of_stripe(stripe, round);
      write_now(connection, stamp, stripe * kStripe, kStripe, 0);
      expect_stamp(connection, stamp, stripe * kStripe, kStripe);
      if (stripe % 64 < kConnections) check(nbd_flush(connection.handle(), 0), "flush");
    }
  }
}

void use_at_once(std::span<NbdConnection> connections) {
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < connections.size(); ++i)
      threads.emplace_back([&connections, i] { write_stripes(connections[i], i); });
  }
  for (NbdConnection& connection : connections)
    for (uint64_t stripe = 0; stripe < kStripes; ++stripe)
      expect_stamp(connection, stamp_of_stripe(stripe, 1), stripe * kStripe, kStripe);
}

}  // namespace
}  // namespace obd::test

int main(int argc, char** argv) {
  using namespace obd::test;
  if (argc != 2) die("usage: multi_conn URI");
  const std::string uri = argv[1];
  std::vector<NbdConnection> connections;
  for (size_t i = 0; i < kConnections; ++i) connections.emplace_back(uri);
  for (const NbdConnection& connection : connections) {
    if (nbd_can_multi_conn(connection.handle()) != 1) die("the server does not offer multi-conn");
    if (connection.size() < kDiskPart) die("the disk is smaller than {} bytes", kDiskPart);
  }
  use_in_turn(connections);
  use_at_once(connections);
  fmt::print("{} connections saw each other's requests\n", kConnections);
}
