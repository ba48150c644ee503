#include "test/interop/script_model.h"

#include <sstream>

namespace obd::interop {

namespace {

void put_word(Bytes& bytes, uint64_t at, uint64_t word) {
  for (uint64_t i = 0; i < 8 && at + i < bytes.size(); ++i) {
    bytes[at + i] = static_cast<std::byte>(word >> (8 * i));
  }
}

}  // namespace

ScriptStream::ScriptStream(uint64_t seed) : state_(seed != 0 ? seed : 0x9E3779B97F4A7C15U) {}

uint64_t ScriptStream::next() {
  state_ ^= state_ >> 12;
  state_ ^= state_ << 25;
  state_ ^= state_ >> 27;
  return state_ * 2685821657736338717U;
}

Bytes ScriptStream::random(uint64_t length) {
  Bytes bytes(length);
  for (uint64_t at = 0; at < length; at += 8) put_word(bytes, at, next());
  return bytes;
}

Bytes ScriptStream::compressible(uint64_t length) {
  Bytes bytes(length);
  uint64_t word = 0;
  for (uint64_t at = 0; at < length; at += 8) {
    if (at % 512 == 0) word = next();
    put_word(bytes, at, word);
  }
  return bytes;
}

std::vector<ScriptWrite> read_script(const std::filesystem::path& script) {
  std::istringstream lines(read_text(script));
  std::vector<ScriptWrite> writes;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    char operation = 0;
    uint64_t length = 0;
    uint64_t seed = 0;
    ScriptWrite write;
    words >> operation;
    if (operation == 'F') continue;
    words >> write.offset >> length;
    if (operation == 'W' || operation == 'P') words >> seed;
    if (!words) throw std::runtime_error(script.string() + ": cannot read line " + line);
    switch (operation) {
      case 'W':
        write.data = ScriptStream(seed).random(length);
        break;
      case 'P':
        write.data = ScriptStream(seed).compressible(length);
        break;
      case '0':
      case 'Z':
        write.data = Bytes(length);
        break;
      default:
        throw std::runtime_error(script.string() + ": unknown operation in line " + line);
    }
    writes.push_back(std::move(write));
  }
  return writes;
}

Bytes disk_from_scripts(uint64_t size, const std::vector<std::filesystem::path>& scripts) {
  FlatDisk disk(size);
  for (const std::filesystem::path& script : scripts) {
    for (const ScriptWrite& write : read_script(script)) disk.write(write.offset, write.data);
  }
  return disk.bytes();
}

}  // namespace obd::interop
