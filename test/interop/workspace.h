// What every interop test needs: a scratch folder, plain file access, configs, opened images.
//
// Failures of the test's own set-up throw std::runtime_error, which GoogleTest reports as a failed
// test. Units: bytes. Thread-safety: none.

#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "core/image/image.h"
#include "core/layer/writable_layer.h"

namespace obd {

// Lets GoogleTest show the kind by its name.
void PrintTo(UpperKind kind, std::ostream* out);

}  // namespace obd

namespace obd::interop {

using Bytes = std::vector<std::byte>;

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kTiB = 1024 * 1024 * kMiB;

// The value of a Result that has to be one.
template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

// The error of a Result that has to be one.
template <typename T>
Error error_of(Result<T> result) {
  if (result) throw std::runtime_error("succeeded although it should have been refused");
  return std::move(result).error();
}

// A folder of its own, removed with everything in it.
class Workspace {
 public:
  Workspace();
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::string operator/(std::string_view name) const {
    return (path_ / name).string();
  }

 private:
  std::filesystem::path path_;
};

std::string read_text(const std::filesystem::path& path);
void write_text(const std::filesystem::path& path, std::string_view content);
void append_text(const std::filesystem::path& path, std::string_view content);
// Overwrites part of a file in place.
void patch(const std::filesystem::path& path, uint64_t offset, std::string_view content);
// `value` as `size` little-endian bytes.
std::string little_endian(uint64_t value, size_t size);

// Content of every regular file below a folder, by path. Equal states: nothing was modified.
std::map<std::string, std::string> folder_state(const std::filesystem::path& folder);

// Runs a shell command line; throws unless it exits with 0. Returns its standard output.
std::string run(const std::string& command_line);

// SHA-256 in lower-case hexadecimal, computed by coreutils.
std::string sha256_of_file(const std::filesystem::path& path);
std::string sha256_of(const Bytes& content);

// Deterministic bytes that do not compress.
Bytes random_bytes(uint64_t seed, uint64_t length);

// The base name of the two files of a writable layer, as made by make_upper.
struct UpperFiles {
  std::string data;
  std::string index;
};

// Writes DIR/config.v1.json.
std::string make_config(const std::filesystem::path& dir, const std::vector<std::string>& lowers,
                        const std::optional<UpperFiles>& upper);

// Makes DIR/writable_data and DIR/writable_index.
UpperFiles make_upper(const std::filesystem::path& dir, UpperKind kind, uint64_t virtual_size);

// A sealed layer that holds the non-zero 4 KiB blocks of `content`.
void make_layer(const std::string& path, const Bytes& content);

// An image in DIR: optionally over DIR/base.lsmt, which holds `base`; returns the config's path.
std::string make_image(const std::filesystem::path& dir, UpperKind kind, uint64_t virtual_size,
                       const Bytes& base = {});

std::unique_ptr<Image> open_writable(const std::string& config,
                                     FileSystem& fs = posix_file_system());
std::unique_ptr<Image> open_readable(const std::string& config,
                                     FileSystem& fs = posix_file_system());
// Closes in good order and lets go of the files and the lock.
void close_image(std::unique_ptr<Image>& image);
Error open_error(const std::string& config, Access access);

Bytes read_range(const Image& image, uint64_t offset, uint64_t length);
Bytes read_disk(const Image& image);

// All warnings of all layers, one a line.
std::string warnings_of(const Image& image);

// For the names of parameterised tests: "append" or "sparse"; a fixture's name without its dashes.
std::string name_of(UpperKind kind);
std::string identifier(std::string_view fixture);

// True when the text holds every one of the words.
bool mentions(std::string_view text, const std::vector<std::string>& words);

// A disk held in memory, to compare an image with.
class FlatDisk {
 public:
  explicit FlatDisk(uint64_t size) : bytes_(size) {}
  explicit FlatDisk(Bytes bytes) : bytes_(std::move(bytes)) {}

  void write(uint64_t offset, const Bytes& data);
  void zero(uint64_t offset, uint64_t length);
  [[nodiscard]] const Bytes& bytes() const { return bytes_; }

 private:
  Bytes bytes_;
};

// Index of the first differing byte, for messages that a person can use; nullopt when equal.
std::optional<size_t> first_difference(const Bytes& a, const Bytes& b);

}  // namespace obd::interop

// Compares two disks without printing their bytes.
#define EXPECT_SAME_BYTES(actual, expected)                                                 \
  do {                                                                                      \
    const ::obd::interop::Bytes actual_bytes = (actual);                                    \
    const ::obd::interop::Bytes expected_bytes = (expected);                                \
    EXPECT_EQ(actual_bytes.size(), expected_bytes.size());                                  \
    const auto difference = ::obd::interop::first_difference(actual_bytes, expected_bytes); \
    EXPECT_FALSE(difference.has_value()) << "first difference at byte " << *difference;     \
  } while (0)
