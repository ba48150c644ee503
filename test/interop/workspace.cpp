#include "test/interop/workspace.h"

#include <stdlib.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>

#include "core/layer/layer_writer.h"
#include "test/interop/script_model.h"

namespace obd {

void PrintTo(UpperKind kind, std::ostream* out) { *out << interop::name_of(kind); }

}  // namespace obd

namespace obd::interop {

namespace fs = std::filesystem;

Workspace::Workspace() {
  std::string name = (fs::temp_directory_path() / "obd-interop-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a scratch folder");
  path_ = fs::canonical(name);
}

Workspace::~Workspace() {
  std::error_code ignored;  // a folder left behind fails no test
  fs::remove_all(path_, ignored);
}

std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void write_text(const fs::path& path, std::string_view content) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << content;
  if (!out.flush()) throw std::runtime_error("cannot write " + path.string());
}

void append_text(const fs::path& path, std::string_view content) {
  patch(path, fs::file_size(path), content);
}

void patch(const fs::path& path, uint64_t offset, std::string_view content) {
  std::fstream out(path, std::ios::binary | std::ios::in | std::ios::out);
  out.seekp(static_cast<std::streamoff>(offset));
  out << content;
  if (!out.flush()) throw std::runtime_error("cannot patch " + path.string());
}

std::string little_endian(uint64_t value, size_t size) {
  std::string bytes;
  for (size_t i = 0; i < size; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
  return bytes;
}

std::map<std::string, std::string> folder_state(const fs::path& folder) {
  std::map<std::string, std::string> state;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) state[entry.path().string()] = read_text(entry.path());
  }
  return state;
}

std::string run(const std::string& command_line) {
  FILE* pipe = popen(command_line.c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("cannot run " + command_line);
  std::string output;
  std::array<char, 4096> buffer{};
  while (const size_t got = fread(buffer.data(), 1, buffer.size(), pipe)) {
    output.append(buffer.data(), got);
  }
  if (pclose(pipe) != 0) throw std::runtime_error("failed: " + command_line);
  return output;
}

std::string sha256_of_file(const fs::path& path) {
  return run("sha256sum '" + path.string() + "'").substr(0, 64);
}

std::string sha256_of(const Bytes& content) {
  const Workspace workspace;
  const fs::path file = workspace.path() / "content";
  std::string text(content.size(), '\0');
  std::ranges::transform(content, text.begin(), [](std::byte b) { return static_cast<char>(b); });
  write_text(file, text);
  return sha256_of_file(file);
}

Bytes random_bytes(uint64_t seed, uint64_t length) {
  ScriptStream stream(seed);
  return stream.random(length);
}

std::string make_config(const fs::path& dir, const std::vector<std::string>& lowers,
                        const std::optional<UpperFiles>& upper) {
  nlohmann::json config = {{"lowers", nlohmann::json::array()}};
  for (const std::string& lower : lowers) config["lowers"].push_back({{"file", lower}});
  if (upper) config["upper"] = {{"data", upper->data}, {"index", upper->index}};
  const fs::path path = dir / "config.v1.json";
  write_text(path, config.dump());
  return path.string();
}

UpperFiles make_upper(const fs::path& dir, UpperKind kind, uint64_t virtual_size) {
  UpperFiles files{.data = (dir / "writable_data").string(),
                   .index = (dir / "writable_index").string()};
  const NewLayer layer{
      .kind = kind, .virtual_size = virtual_size, .uuid = Uuid::random(), .parent_uuid = Uuid()};
  must(create_writable_layer(posix_file_system(), files.data, files.index, layer));
  return files;
}

void make_layer(const std::string& path, const Bytes& content) {
  LayerOptions options;
  options.virtual_size = content.size();
  options.uuid = Uuid::random();
  auto writer = must(LayerWriter::create(posix_file_system(), path, options));
  for (uint64_t at = 0; at < content.size(); at += kBlockSize) {
    const auto block = std::span(content).subspan(at, std::min(kBlockSize, content.size() - at));
    const bool zeros = std::ranges::all_of(block, [](std::byte b) { return b == std::byte{0}; });
    if (!zeros) must(writer->append_data(Sectors::floor(at), block));
  }
  must(writer->finish());
}

std::string make_image(const fs::path& dir, UpperKind kind, uint64_t virtual_size,
                       const Bytes& base) {
  fs::create_directories(dir);
  std::vector<std::string> lowers;
  if (!base.empty()) {
    lowers.push_back((dir / "base.lsmt").string());
    make_layer(lowers.back(), base);
  }
  return make_config(dir, lowers, make_upper(dir, kind, virtual_size));
}

std::unique_ptr<Image> open_writable(const std::string& config, FileSystem& fs) {
  return must(Image::open(fs, config, {.access = Access::read_write}));
}

std::unique_ptr<Image> open_readable(const std::string& config, FileSystem& fs) {
  return must(Image::open(fs, config, {.access = Access::read_only}));
}

void close_image(std::unique_ptr<Image>& image) {
  must(image->close());
  image.reset();
}

Error open_error(const std::string& config, Access access) {
  return error_of(Image::open(posix_file_system(), config, {.access = access}));
}

Bytes read_range(const Image& image, uint64_t offset, uint64_t length) {
  Bytes bytes(length, std::byte{0xEE});  // a byte that was not filled in shows
  must(image.read(bytes, offset));
  return bytes;
}

Bytes read_disk(const Image& image) { return read_range(image, 0, image.size()); }

std::string warnings_of(const Image& image) {
  std::string text;
  for (const LayerInfo& layer : must(image.layers())) {
    for (const std::string& warning : layer.warnings) text += warning + '\n';
  }
  return text;
}

std::string name_of(UpperKind kind) { return kind == UpperKind::append ? "append" : "sparse"; }

std::string identifier(std::string_view fixture) {
  std::string name(fixture);
  std::ranges::replace(name, '-', '_');
  return name;
}

bool mentions(std::string_view text, const std::vector<std::string>& words) {
  return std::ranges::all_of(
      words, [&](const std::string& word) { return text.find(word) != std::string_view::npos; });
}

void FlatDisk::write(uint64_t offset, const Bytes& data) {
  std::ranges::copy(data, bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
}

void FlatDisk::zero(uint64_t offset, uint64_t length) { write(offset, Bytes(length)); }

std::optional<size_t> first_difference(const Bytes& a, const Bytes& b) {
  if (a == b) return std::nullopt;
  const size_t common = std::min(a.size(), b.size());
  for (size_t i = 0; i < common; ++i) {
    if (a[i] != b[i]) return i;
  }
  return common;
}

}  // namespace obd::interop
