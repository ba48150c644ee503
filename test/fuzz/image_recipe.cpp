#include "test/fuzz/image_recipe.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "core/format/little_endian.h"
#include "core/format/log_marker.h"
#include "core/format/tar.h"
#include "core/format/zfile.h"
#include "core/image/image.h"
#include "core/image/update.h"
#include "core/layer/layer_writer.h"
#include "test/fuzz/fuzz.h"
#include "test/fuzz/repair.h"
#include "test/support/random.h"
#include "test/support/seeded.h"

namespace obd::fuzz {
namespace {

using test::expect_ok;
using test::expect_value;
using test::MemoryFileSystem;
using test::Random;
using Content = std::vector<std::byte>;

constexpr uint64_t kHugeDisk = uint64_t{1} << 50;
constexpr uint64_t kLongestRun = 40;        // sectors
constexpr size_t kMostChanged = 64 * 1024;  // of a file: its first bytes

struct Recipe {
  explicit Recipe(std::span<const uint8_t> input)
      : lowers(input[0] % 9U),
        upper(input[1] % 4U),
        update((input[1] & 4U) != 0),
        closed((input[1] & 8U) != 0),
        huge((input[1] & 16U) != 0),
        rebooted((input[1] & 32U) != 0),
        repaired((input[1] & 64U) == 0),
        seed(input[2] | uint64_t{input[3]} << 8 | uint64_t{input[4]} << 16 |
             uint64_t{input[5]} << 24) {
    if (lowers == 0 && upper == 0) lowers = 1;
  }

  size_t lowers;
  unsigned upper;
  bool update, closed, huge, rebooted, repaired;
  uint64_t seed;
};

struct Change {
  explicit Change(std::span<const uint8_t> bytes)
      : file(bytes[0]),
        part(bytes[1]),
        which(bytes[2] | size_t{bytes[3]} << 8),
        way(bytes[4]),
        value(bytes[5] | uint64_t{bytes[6]} << 8 | uint64_t{bytes[7]} << 16) {}

  size_t file;
  unsigned part;
  size_t which;
  unsigned way;
  uint64_t value;
};

// A number in a file: `bits` of the little-endian word of 8 bytes (or less, at the end) at `at`.
struct Field {
  size_t at;
  unsigned shift = 0;
  unsigned bits = 64;
};

constexpr std::array kLsmtFields = {Field{28, 0, 32}, Field{32},        Field{40},
                                    Field{48},        Field{56, 0, 8},  Field{93, 0, 8},
                                    Field{0},         Field{134, 0, 8}, Field{504}};
constexpr std::array kEntryFields = {Field{0, 0, 50}, Field{0, 50, 14}, Field{8, 0, 55},
                                     Field{8, 55, 1}, Field{8, 32, 24}, Field{8, 56, 8}};
constexpr std::array kZfileFields = {
    Field{32},        Field{40},       Field{48},       Field{56},        Field{64, 0, 32},
    Field{72, 0, 32}, Field{76, 0, 8}, Field{78, 0, 8}, Field{84, 0, 32}, Field{88, 0, 8}};
constexpr std::array kTarFields = {Field{124, 0, 64}, Field{128, 0, 64}, Field{156, 0, 8},
                                   Field{263, 0, 16}, Field{512},        Field{516}};

uint64_t changed(uint64_t now, const Change& change, uint64_t file_size) {
  const uint64_t power = uint64_t{1} << change.value % 64;
  switch (change.way % 10) {
    case 0:
      return change.value;
    case 1:
      return ~uint64_t{0};
    case 2:
      return power;
    case 3:
      return power - 1;
    case 4:
      return now + change.value % 256;
    case 5:
      return now - change.value % 256;
    case 6:
      return now ^ power;
    case 7:
      return file_size - change.value % 8192;
    case 8:
      return now << change.value % 16;
    default:
      return now * (change.value % 1024);
  }
}

void change_field(Content& file, Field field, const Change& change) {
  if (field.at >= file.size()) return;
  const size_t size = std::min<size_t>(sizeof(uint64_t), file.size() - field.at);
  uint64_t word = 0;
  std::memcpy(&word, &file[field.at], size);
  const uint64_t mask = field.bits == 64 ? ~uint64_t{0} : (uint64_t{1} << field.bits) - 1;
  const uint64_t value = changed(word >> field.shift & mask, change, file.size()) & mask;
  word = (word & ~(mask << field.shift)) | value << field.shift;
  std::memcpy(&file[field.at], &word, size);
}

template <size_t N>
Field one_of(const std::array<Field, N>& fields, size_t base, size_t which) {
  Field field = fields[which % N];
  field.at += base;
  return field;
}

// Of the entries that begin at `first`, in `count` places.
void change_entry(Content& file, size_t first, size_t count, const Change& change) {
  if (count == 0) return;
  const size_t at = first + change.which % count * lsmt::kEntrySize;
  if (at + lsmt::kEntrySize > file.size()) return;
  const auto bytes = std::span(file).subspan(at).first<lsmt::kEntrySize>();
  switch (change.way / 16 % 8) {
    case 0: {  // a marker; repair_log() makes its check right
      lsmt::Marker marker;
      marker.kind = static_cast<lsmt::MarkerKind>(1 + change.value % 7);
      marker.distance = static_cast<uint32_t>(change.value >> 8);
      marker.hash = change.value >> 8;
      lsmt::encode_marker(marker, bytes);
      return;
    }
    case 1:  // padding
      lsmt::encode_entry(lsmt::Entry{}, bytes);
      return;
    case 2: {  // another one, once more
      const size_t other = first + change.value % count * lsmt::kEntrySize;
      if (other + lsmt::kEntrySize > file.size()) return;
      std::memmove(bytes.data(), &file[other], lsmt::kEntrySize);
      return;
    }
    default:
      change_field(file, one_of(kEntryFields, at, change.value >> 16), change);
  }
}

// The layer itself, whatever it is then wrapped in.
void change_layer(Content& content, const Change& change) {
  if (content.size() < 2 * lsmt::kHeaderSize) return;
  const size_t trailer = content.size() - lsmt::kHeaderSize;
  const auto index_offset = load_le<uint64_t>(std::span(content).subspan(trailer + 32).first<8>());
  switch (change.part % 8) {
    case 0:
      return change_field(content, one_of(kLsmtFields, 0, change.which), change);
    case 1:
      return change_field(content, one_of(kLsmtFields, trailer, change.which), change);
    case 2: {  // padding in front of the trailer: an index of any size
      if (index_offset > trailer) return;
      const size_t entries = 32 * (change.value % 4096);
      std::array<std::byte, lsmt::kEntrySize> padding;
      lsmt::encode_entry(lsmt::Entry{}, padding);
      Content added;
      for (size_t i = 0; i < entries; ++i)
        added.insert(added.end(), padding.begin(), padding.end());
      content.insert(content.begin() + static_cast<ptrdiff_t>(trailer), added.begin(), added.end());
      const auto size = std::span(content).subspan(trailer + added.size() + 40).first<8>();
      store_le(size, load_le<uint64_t>(size) + entries);
      return;
    }
    default:
      if (index_offset > trailer) return;
      return change_entry(content, index_offset, (trailer - index_offset) / lsmt::kEntrySize,
                          change);
  }
}

void change_container(Content& file, const Change& change) {
  const bool is_tar = !zfile::has_magic(file) && !lsmt::has_magic(file);
  const size_t start = is_tar ? tar::kPrefixSize : 0;
  if (is_tar && change.part % 4 == 0) {
    const size_t header = change.part / 4 % 2 == 0 ? 0 : 2 * tar::kBlockSize;
    return change_field(file, one_of(kTarFields, header, change.which), change);
  }
  if (file.size() < start + 2 * zfile::kHeaderSize) return;
  const size_t end = is_tar ? file.size() - tar::suffix_size(file.size() - start) : file.size();
  switch (change.part % 4) {
    case 0:
    case 1:
      return change_field(file, one_of(kZfileFields, start, change.which), change);
    case 2: {
      // The trailer of a ZFile stands before the tar file's end, which is rounded up.
      const size_t trailer = std::min(end, file.size()) - zfile::kHeaderSize;
      return change_field(file, one_of(kZfileFields, trailer, change.which), change);
    }
    default: {
      const auto table = load_le<uint64_t>(std::span(file).subspan(start + 40).first<8>());
      const auto blocks = load_le<uint64_t>(std::span(file).subspan(start + 48).first<8>());
      if (blocks == 0 || table > file.size() || blocks > file.size()) return;
      const size_t at = start + table + change.which % blocks * zfile::kTableEntrySize;
      return change_field(file, {at, 0, 32}, change);
    }
  }
}

void change_anywhere(Content& file, const Change& change) {
  if (!file.empty()) change_field(file, {change.which % file.size(), 0, 8}, change);
}

Content read_file(FileSystem& fs, const std::string& path, uint64_t most) {
  const auto file = expect_value(fs.open(path, Access::read_only));
  Content content(std::min(expect_value(file->info()).size, most));
  content.resize(expect_value(file->read_at(content, 0)));
  return content;
}

Uuid random_uuid(Random& random) {
  const uint64_t value = random.next();
  return expect_value(Uuid::parse(
      fmt::format("{:08x}-{:04x}-4000-8000-{:012x}", value >> 32, value & 0xFFFF, value >> 16)));
}

Content make_layer(Random& random, uint64_t virtual_size, bool huge) {
  MemoryFileSystem fs;
  LayerOptions options;
  options.virtual_size = virtual_size;
  options.uuid = random_uuid(random);
  auto writer = expect_value(LayerWriter::create(fs, "/layer", options));
  const uint64_t sectors = virtual_size / kSectorSize;
  uint64_t at = random.below(kLongestRun);
  for (uint64_t runs = random.between(1, 12); runs > 0 && at < sectors; --runs) {
    const uint64_t length = std::min(sectors - at, random.between(1, kLongestRun));
    if (random.percent(30)) {
      expect_ok(writer->append_zero(Sectors(at), Sectors(length)));
    } else {
      Content bytes(length * kSectorSize, static_cast<std::byte>(random.next()));
      if (random.percent(30)) random.fill(std::span(bytes).first(kSectorSize));
      expect_ok(writer->append_data(Sectors(at), bytes));
    }
    at += length + (random.percent(60) ? random.below(kLongestRun) : 0);
    if (huge && random.percent(20)) at += random.below(sectors / 8);
  }
  expect_ok(writer->finish());
  return read_file(fs, "/layer", UINT64_MAX);
}

Content wrap(Random& random, const Content& layer) {
  MemoryFileSystem fs;
  BlobOptions options;
  options.compression = static_cast<Compression>(random.below(3));
  options.block_size = zfile::kMinBlockSize << random.below(12);
  options.tar = random.percent(30);
  options.threads = 1;
  if (options.compression == Compression::none && !options.tar) return layer;
  const auto writer = expect_value(BlobWriter::create(fs, "/blob", options, false));
  expect_ok(writer->append(layer));
  expect_ok(writer->finish());
  return read_file(fs, "/blob", UINT64_MAX);
}

void use_upper(FileSystem& fs, Random& random, const ImageConfig& config, bool closed) {
  const auto image = expect_value(Image::open(fs, config, {}));
  const uint64_t size = image->size();
  for (uint64_t steps = random.between(1, 14); steps > 0; --steps) {
    const uint64_t length = std::min(size, random.between(1, kLongestRun * kSectorSize));
    uint64_t offset = random.below(size - length + 1);
    if (random.percent(70)) offset = random.below(std::min(size - length + 1, uint64_t{1} << 18));
    if (random.percent(60)) offset = align_down(offset, kBlockSize);
    switch (random.below(5)) {
      case 0:
        expect_ok(image->zero(offset, length));
        break;
      case 1:
        expect_ok(image->trim(offset, length));
        break;
      case 2:
        expect_ok(image->flush());
        break;
      default:
        expect_ok(image->write(Content(length, static_cast<std::byte>(random.next())), offset));
    }
  }
  if (closed) expect_ok(image->close());
}

// An update that has been applied as far as the host went along.
void begin_update(MemoryFileSystem& fs, Random& random, const ImageConfig& config) {
  const auto image = expect_value(Image::open(fs, config, {}));
  const auto wanted = expect_value(fs.create("/wanted", 0644));
  Content bytes(16 * kBlockSize);
  random.fill(std::span(bytes).subspan(random.below(8) * kBlockSize, 2 * kBlockSize));
  expect_ok(wanted->write_at(bytes, 0));
  const uint64_t length = std::min<uint64_t>(bytes.size(), align_down(image->size(), kSectorSize));
  if (expect_value(write_update(fs, *image, *wanted, length, nullptr))) {
    fs.inject({.operation = test::Operation::sync, .nth = random.between(1, 9), .sticky = true});
    (void)apply_update(fs, *image);
    fs.clear_faults();
  }
  expect_ok(fs.remove("/wanted"));
}

void change_upper(FileSystem& fs, const UpperConfig& upper, const Change& change,
                  uint64_t boot_hash) {
  const bool is_log = change.part % 4 != 0;
  const std::string& path = is_log ? upper.index : upper.data;
  const auto file = expect_value(fs.open(path, Access::read_write));
  const uint64_t size = expect_value(file->info()).size;
  if (change.part % 16 == 15) {  // longer by a hole, or shorter
    const uint64_t wanted = changed(size, change, size) & (uint64_t{1} << 56) - 1;
    return expect_ok(file->truncate(wanted));
  }
  Content content = read_file(fs, path, kMostChanged);
  if (content.size() < lsmt::kHeaderSize) return;
  if (!is_log || change.part % 16 == 1) {
    change_field(content, one_of(kLsmtFields, 0, change.which), change);
  } else if (change.part % 16 == 2) {
    change_anywhere(content, change);
  } else {
    change_entry(content, lsmt::kHeaderSize,
                 (content.size() - lsmt::kHeaderSize) / lsmt::kEntrySize, change);
  }
  if (is_log) repair_log(content, boot_hash);
  expect_ok(file->write_at(content, 0));
}

void write_config(FileSystem& fs, const ImageConfig& config) {
  std::string text;
  for (const std::string& lower : config.lowers) {
    text += fmt::format("{}{{\"file\": \"{}\"}}", text.empty() ? "" : ", ", lower);
  }
  text = fmt::format("{{\"lowers\": [{}]", text);
  if (config.upper) {
    text += fmt::format(", \"upper\": {{\"data\": \"{}\", \"index\": \"{}\"}}", config.upper->data,
                        config.upper->index);
  }
  text += "}";
  put_file(fs, config.path, std::as_bytes(std::span(text)));
}

}  // namespace

MadeImage make_image(MemoryFileSystem& fs, std::span<const uint8_t> input) {
  const Recipe recipe(input);
  Random random(recipe.seed);
  std::vector<Change> changes;
  for (auto rest = input.subspan(kRecipeSize); rest.size() >= kChangeSize;
       rest = rest.subspan(kChangeSize)) {
    changes.emplace_back(rest.first(kChangeSize));
  }
  const size_t files = recipe.lowers + (recipe.upper != 0 ? 2 : 0);
  const uint64_t size =
      recipe.huge ? kHugeDisk : random.between(1, 2 * kLongestRun * 8) * kSectorSize;

  MadeImage made;
  made.config.path = "/image/config.v1.json";
  // Right as they are made: what the upper is written over.
  ImageConfig sound = made.config;
  for (size_t number = 0; number < recipe.lowers; ++number) {
    Content layer = make_layer(random, size, recipe.huge);
    Random choice(random.next());
    Random same = choice;
    const std::string path = fmt::format("/image/lower{}", number);
    if (recipe.upper != 0) {
      sound.lowers.push_back(path + ".sound");
      put_file(fs, sound.lowers.back(), layer);
    }
    for (const Change& change : changes) {
      if (change.file % files == number && change.part % 16 < 10) change_layer(layer, change);
    }
    Content file = wrap(same, layer);
    bool touched = false;
    for (const Change& change : changes) {
      if (change.file % files != number || change.part % 16 < 10) continue;
      change.part % 16 == 15 ? change_anywhere(file, change) : change_container(file, change);
      touched = true;
    }
    if (touched && recipe.repaired) repair_blob(file);
    put_file(fs, path, file);
    made.file_bytes += file.size();
    made.config.lowers.push_back(path);
  }

  if (recipe.upper != 0) {
    const UpperConfig upper{"/image/data", "/image/index"};
    made.config.upper = sound.upper = upper;
    NewLayer layer;
    layer.kind = recipe.upper == 2 ? UpperKind::sparse : UpperKind::append;
    layer.virtual_size = random.percent(10) && recipe.lowers > 0 ? 0 : size;
    layer.uuid = random_uuid(random);
    expect_ok(create_writable_layer(fs, upper.data, upper.index, layer));
    use_upper(fs, random, sound, recipe.closed);
    if (recipe.update) begin_update(fs, random, sound);
    for (const std::string& path : sound.lowers) expect_ok(fs.remove(path));
    if (recipe.rebooted) fs.set_boot_id("second-boot");
    const uint64_t boot_hash = recipe.rebooted ? 0 : lsmt::marker_hash(expect_value(fs.boot_id()));
    for (const Change& change : changes) {
      if (change.file % files >= recipe.lowers) change_upper(fs, upper, change, boot_hash);
    }
    for (const std::string& path : {upper.data, upper.index}) {
      const auto file = expect_value(fs.open(path, Access::read_only));
      const FileInfo info = expect_value(file->info());
      made.file_bytes += std::min(info.size, info.allocated);
    }
  }
  write_config(fs, made.config);
  return made;
}

}  // namespace obd::fuzz
