#include "tools/oci/ext4_channel.h"

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

namespace obd::oci {
namespace {

ChannelTarget& target_of(io_channel channel) {
  return *static_cast<ChannelTarget*>(channel->private_data);
}

errcode_t keep_error(io_channel channel, const Result<void>& result) {
  if (result) return 0;
  ChannelTarget& target = target_of(channel);
  if (!target.error) target.error = result.error();
  return result.error().code;
}

// A count below zero is one of bytes.
uint64_t byte_count(io_channel channel, int count) {
  if (count < 0) return static_cast<uint64_t>(-int64_t{count});
  return static_cast<uint64_t>(count) * static_cast<uint64_t>(channel->block_size);
}

// UINT64_MAX, which lies past any disk, when the product does not fit.
uint64_t byte_offset(io_channel channel, unsigned long long block) {
  const auto size = static_cast<uint64_t>(channel->block_size);
  return block > UINT64_MAX / size ? UINT64_MAX : block * size;
}

errcode_t open_channel(const char* name, int, io_channel* channel) {
  auto* target = reinterpret_cast<ChannelTarget*>(std::strtoull(name, nullptr, 16));
  auto* made = new (std::nothrow) struct_io_channel{};
  if (made == nullptr) return ENOMEM;
  made->magic = EXT2_ET_MAGIC_IO_CHANNEL;
  made->manager = channel_manager();
  made->block_size = 1024;
  made->refcount = 1;
  made->private_data = target;
  *channel = made;
  return 0;
}

errcode_t close_channel(io_channel channel) {
  if (--channel->refcount > 0) return 0;
  delete channel;
  return 0;
}

errcode_t set_block_size(io_channel channel, int size) {
  channel->block_size = size;
  return 0;
}

errcode_t read_blocks64(io_channel channel, unsigned long long block, int count, void* data) {
  return keep_error(channel, target_of(channel).cache.read(
                                 {static_cast<std::byte*>(data), byte_count(channel, count)},
                                 byte_offset(channel, block)));
}

errcode_t write_blocks64(io_channel channel, unsigned long long block, int count,
                         const void* data) {
  return keep_error(channel, target_of(channel).cache.write(
                                 {static_cast<const std::byte*>(data), byte_count(channel, count)},
                                 byte_offset(channel, block)));
}

errcode_t read_blocks(io_channel channel, unsigned long block, int count, void* data) {
  return read_blocks64(channel, block, count, data);
}

errcode_t write_blocks(io_channel channel, unsigned long block, int count, const void* data) {
  return write_blocks64(channel, block, count, data);
}

errcode_t write_bytes(io_channel channel, unsigned long offset, int count, const void* data) {
  if (count < 0) return EXT2_ET_INVALID_ARGUMENT;
  return keep_error(channel,
                    target_of(channel).cache.write(
                        {static_cast<const std::byte*>(data), static_cast<size_t>(count)}, offset));
}

errcode_t write_zeros(io_channel channel, unsigned long long block, unsigned long long count) {
  const std::vector<std::byte> zeros(static_cast<size_t>(channel->block_size));
  for (unsigned long long i = 0; i < count; ++i) {
    const errcode_t code = write_blocks64(channel, block + i, 1, zeros.data());
    if (code != 0) return code;
  }
  return 0;
}

// Libext2fs flushes in the middle, too; only its last flush leaves something whole.
errcode_t flush_channel(io_channel channel) {
  ChannelTarget& target = target_of(channel);
  return target.closing ? keep_error(channel, target.cache.flush()) : 0;
}

errcode_t set_option(io_channel, const char*, const char*) { return EXT2_ET_INVALID_ARGUMENT; }

struct_io_manager make_manager() {
  struct_io_manager manager{};
  manager.magic = EXT2_ET_MAGIC_IO_MANAGER;
  manager.name = "overlaybd image";
  manager.open = open_channel;
  manager.close = close_channel;
  manager.set_blksize = set_block_size;
  manager.read_blk = read_blocks;
  manager.write_blk = write_blocks;
  manager.flush = flush_channel;
  manager.write_byte = write_bytes;
  manager.set_option = set_option;
  manager.read_blk64 = read_blocks64;
  manager.write_blk64 = write_blocks64;
  manager.zeroout = write_zeros;
  return manager;
}

}  // namespace

std::string channel_name(ChannelTarget& target) {
  return fmt::format("{:x}", reinterpret_cast<uintptr_t>(&target));
}

io_manager channel_manager() {
  static struct_io_manager manager = make_manager();
  return &manager;
}

}  // namespace obd::oci
