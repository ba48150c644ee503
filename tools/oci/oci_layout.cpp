#include "tools/oci/oci_layout.h"

#include <fmt/chrono.h>
#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "core/format/tar.h"
#include "core/io/output_file.h"
#include "tools/oci/digest.h"
#include "tools/oci/tar_header.h"

namespace obd::oci {
namespace {

constexpr const char* kLayerType = "application/vnd.oci.image.layer.v1.tar";
constexpr const char* kConfigType = "application/vnd.oci.image.config.v1+json";
constexpr const char* kManifestType = "application/vnd.oci.image.manifest.v1+json";
constexpr const char* kIndexType = "application/vnd.oci.image.index.v1+json";

constexpr const char* kVersionKey = "containerd.io/snapshot/overlaybd/version";
constexpr const char* kVersion = "0.1.0";
constexpr const char* kBlobDigestKey = "containerd.io/snapshot/overlaybd/blob-digest";
constexpr const char* kBlobSizeKey = "containerd.io/snapshot/overlaybd/blob-size";
constexpr const char* kFsTypeKey = "containerd.io/snapshot/overlaybd/blob-fs-type";
constexpr const char* kNameKey = "io.containerd.image.name";
constexpr const char* kTagKey = "org.opencontainers.image.ref.name";

constexpr size_t kCopySize = size_t{1} << 20;
constexpr const char* kBlobs = "blobs/sha256";

// As Go calls what uname(2) does: architecture and variant.
std::pair<std::string, std::string> host_architecture() {
  utsname names{};
  if (::uname(&names) != 0) return {"amd64", ""};
  const std::string machine = static_cast<const char*>(names.machine);
  if (machine == "x86_64") return {"amd64", ""};
  if (machine == "aarch64") return {"arm64", ""};
  if (machine == "armv7l") return {"arm", "v7"};
  if (machine == "i686" || machine == "i386") return {"386", ""};
  return {machine, ""};
}

std::string time_text(int64_t seconds) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(static_cast<time_t>(seconds)));
}

std::string blob_path(const std::string& digest) {
  return fmt::format("{}/{}", kBlobs, digest.substr(digest.find(':') + 1));
}

Json descriptor_json(const char* type, const Descriptor& descriptor) {
  return {{"mediaType", type}, {"digest", descriptor.digest}, {"size", descriptor.size}};
}

Json layer_json(const Descriptor& layer, const std::string& file_system) {
  Json json = descriptor_json(kLayerType, layer);
  json["annotations"] = {{kVersionKey, kVersion},
                         {kBlobDigestKey, layer.digest},
                         {kBlobSizeKey, std::to_string(layer.size)}};
  if (!file_system.empty()) json["annotations"][kFsTypeKey] = file_system;
  return json;
}

// How many layers a history tells of.
size_t layers_in(const Json& history) {
  return static_cast<size_t>(std::ranges::count_if(history, [](const Json& entry) {
    return !(entry.is_object() && entry.contains("empty_layer") &&
             entry["empty_layer"] == Json(true));
  }));
}

Json config_json(const ImageDescription& image, const std::vector<Descriptor>& layers) {
  Json config = image.config.is_object() ? image.config : Json::object();
  if (!config.contains("created")) config["created"] = time_text(image.created);
  if (!config.contains("architecture")) {
    const auto [architecture, variant] = host_architecture();
    config["architecture"] = architecture;
    if (!variant.empty()) config["variant"] = variant;
  }
  if (!config.contains("os")) config["os"] = "linux";
  if (!config.contains("config")) config["config"] = Json::object();
  Json digests = Json::array();
  // The layers are not compressed: what they are called is what they hold.
  for (const Descriptor& layer : layers) digests.push_back(layer.digest);
  config["rootfs"] = {{"type", "layers"}, {"diff_ids", digests}};
  // A history that tells of other layers than these would mislead.
  const bool fits = config.contains("history") && config["history"].is_array() &&
                    layers_in(config["history"]) == layers.size();
  if (!fits) {
    config["history"] = Json::array();
    for (size_t i = 0; i < layers.size(); ++i) {
      Json entry = {{"created", time_text(image.created)}, {"created_by", "obd export-oci"}};
      if (i < image.comments.size() && !image.comments[i].empty()) {
        entry["comment"] = image.comments[i];
      }
      config["history"].push_back(entry);
    }
  }
  return config;
}

std::string text_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Appends to a new file, and hashes what it appends.
class HashedFile {
 public:
  explicit HashedFile(File& file) : file_(file) {}
  Result<void> append(std::span<const std::byte> bytes) {
    OBD_TRY(file_.write_at(bytes, size_));
    hash_.add(bytes);
    size_ += bytes.size();
    return {};
  }
  Result<void> append_range(const File& from, ByteRange range, const ReportProgress& report,
                            std::string_view what) {
    std::vector<std::byte> buffer(kCopySize);
    for (uint64_t done = 0; done < range.length;) {
      const auto piece =
          std::span(buffer).first(std::min<uint64_t>(buffer.size(), range.length - done));
      OBD_TRY(read_exactly(from, piece, range.offset + done));
      OBD_TRY(append(piece));
      done += piece.size();
      OBD_TRY(report_progress(report, what, done, range.length));
    }
    return {};
  }
  Descriptor descriptor() { return {hash_.digest(), size_}; }

 private:
  File& file_;
  Sha256 hash_;
  uint64_t size_ = 0;
};

void put(std::string& header, size_t offset, std::string_view text) {
  std::memcpy(header.data() + offset, text.data(), text.size());
}

}  // namespace

std::string tar_file_header(const std::string& name, uint64_t size, int64_t mtime) {
  std::string header(kTarBlock, '\0');
  put(header, 0, std::string_view(name).substr(0, 100));
  put(header, 100, "0000644");
  put(header, 108, "0000000");
  put(header, 116, "0000000");
  if (size < uint64_t{1} << 33) {
    put(header, 124, fmt::format("{:011o}", size));
  } else {
    // GNU's way for numbers that have no room: base 256.
    header[124] = static_cast<char>(0x80);
    for (size_t i = 0; i < 8; ++i) header[128 + i] = static_cast<char>(size >> (56 - 8 * i));
  }
  put(header, 136, fmt::format("{:011o}", static_cast<uint64_t>(mtime)));
  put(header, 156, "0");
  put(header, 257, std::string_view("ustar\00000", 8));
  uint64_t sum = 8 * ' ';
  for (const char c : header) sum += static_cast<unsigned char>(c);
  put(header, 148, fmt::format("{:06o}", sum));
  header[155] = ' ';
  return header;
}

std::string file_system_in(std::span<const std::byte> start) {
  const auto has = [&](size_t offset, std::string_view magic) {
    return start.size() >= offset + magic.size() &&
           std::memcmp(start.data() + offset, magic.data(), magic.size()) == 0;
  };
  if (has(1024 + 0x38, "\x53\xEF")) return "ext4";
  if (has(0, "XFSB")) return "xfs";
  if (has(1024, "\xE2\xE1\xF5\xE0")) return "erofs";
  return "";
}

std::string with_tag(const std::string& name) {
  const size_t slash = name.rfind('/');
  const size_t from = slash == std::string::npos ? 0 : slash;
  return name.find(':', from) == std::string::npos ? name + ":latest" : name;
}

Result<Layout> Layout::create(FileSystem& fs, const std::string& target) {
  OBD_TRY_ASSIGN(const bool taken, fs.exists(target));
  if (taken) return fail(EEXIST, "{}: exists already: choose another name", target);
  std::string plain = target;
  while (plain.size() > 1 && plain.ends_with('/')) plain.pop_back();
  std::string folder = plain + ".tmp-XXXXXX";
  if (::mkdtemp(folder.data()) == nullptr) {
    return fail_errno(errno, "{}: cannot make a folder beside it", target);
  }
  Layout layout(fs, plain, folder);
  std::error_code code;
  std::filesystem::create_directories(std::filesystem::path(folder) / kBlobs, code);
  if (code) return fail_errno(code.value(), "{}: cannot make its folders", folder);
  std::filesystem::permissions(folder, std::filesystem::perms(0755), code);
  if (code) return fail_errno(code.value(), "{}: cannot change its mode", folder);
  return layout;
}

Layout::Layout(Layout&& other) noexcept
    : fs_(other.fs_),
      target_(std::move(other.target_)),
      folder_(std::exchange(other.folder_, "")),
      layers_(std::move(other.layers_)),
      blobs_(std::move(other.blobs_)) {}

Layout::~Layout() {
  if (folder_.empty()) return;
  // The error that led here is being told; what cannot be removed stays.
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

Result<void> Layout::write_text(const std::string& path, const std::string& text) {
  OBD_TRY_ASSIGN(const auto file, fs_->create(fmt::format("{}/{}", folder_, path), 0644));
  OBD_TRY(file->write_at(std::as_bytes(std::span(text)), 0));
  OBD_TRY(file->sync());
  if (std::ranges::find(blobs_, path) == blobs_.end()) blobs_.push_back(path);
  return {};
}

Result<Descriptor> Layout::add_text(const std::string& text) {
  Descriptor descriptor{digest_of(text), text.size()};
  OBD_TRY(write_text(blob_path(descriptor.digest), text));
  return descriptor;
}

Result<Descriptor> Layout::add_layer(const File& file, ByteRange range,
                                     const ReportProgress& report) {
  const std::string temporary = fmt::format("{}/layer-{}", folder_, layers_.size());
  Descriptor layer;
  {
    OBD_TRY_ASSIGN(const auto output, fs_->create(temporary, 0644));
    HashedFile hashed(*output);
    OBD_TRY(hashed.append(tar::encode_prefix(range.length)));
    OBD_TRY(hashed.append_range(file, range, report, "exporting " + file.path()));
    const std::vector<std::byte> suffix(tar::suffix_size(range.length));
    OBD_TRY(hashed.append(suffix));
    OBD_TRY(output->sync());
    layer = hashed.descriptor();
  }
  const std::string path = blob_path(layer.digest);
  OBD_TRY(fs_->rename(temporary, fmt::format("{}/{}", folder_, path)));
  // Two layers that are the same are one blob.
  if (std::ranges::find(blobs_, path) == blobs_.end()) blobs_.push_back(path);
  layers_.push_back(layer);
  return layer;
}

Result<void> Layout::pack(int64_t created, const ReportProgress& report) {
  OBD_TRY_ASSIGN(auto output, OutputFile::create(*fs_, target_, 0644, false));
  HashedFile hashed(output.file());
  for (const std::string& path : blobs_) {
    OBD_TRY_ASSIGN(const auto file,
                   fs_->open(fmt::format("{}/{}", folder_, path), Access::read_only));
    OBD_TRY_ASSIGN(const FileInfo info, file->info());
    const std::string header = tar_file_header(path, info.size, created);
    OBD_TRY(hashed.append(std::as_bytes(std::span(header))));
    OBD_TRY(hashed.append_range(*file, {0, info.size}, report, "packing " + target_));
    const std::vector<std::byte> fill((kTarBlock - info.size % kTarBlock) % kTarBlock);
    OBD_TRY(hashed.append(fill));
  }
  const std::vector<std::byte> end(2 * kTarBlock);
  OBD_TRY(hashed.append(end));
  return output.finish();
}

Result<Descriptor> Layout::finish(const ImageDescription& image, bool as_tar,
                                  const ReportProgress& report) {
  const Json config = config_json(image, layers_);
  OBD_TRY_ASSIGN(const Descriptor config_blob, add_text(text_of(config)));
  Json manifest = {{"schemaVersion", 2},
                   {"mediaType", kManifestType},
                   {"config", descriptor_json(kConfigType, config_blob)},
                   {"layers", Json::array()}};
  for (const Descriptor& layer : layers_) {
    manifest["layers"].push_back(layer_json(layer, image.file_system));
  }
  OBD_TRY_ASSIGN(const Descriptor manifest_blob, add_text(text_of(manifest)));

  Json entry = descriptor_json(kManifestType, manifest_blob);
  entry["platform"] = {{"architecture", config["architecture"]}, {"os", config["os"]}};
  if (config.contains("variant")) entry["platform"]["variant"] = config["variant"];
  if (!image.name.empty()) {
    entry["annotations"] = {{kNameKey, image.name},
                            {kTagKey, image.name.substr(image.name.rfind(':') + 1)}};
  }
  const Json index = {
      {"schemaVersion", 2}, {"mediaType", kIndexType}, {"manifests", Json::array({entry})}};
  OBD_TRY(write_text("index.json", text_of(index)));
  OBD_TRY(write_text("oci-layout", R"({"imageLayoutVersion":"1.0.0"})"));

  if (as_tar) {
    OBD_TRY(pack(image.created, report));
  } else {
    for (const char* folder : {kBlobs, "blobs", "."}) {
      OBD_TRY(fs_->sync_directory(fmt::format("{}/{}", folder_, folder)));
    }
    OBD_TRY(fs_->rename_new(folder_, target_));
    folder_.clear();
    OBD_TRY(fs_->sync_directory(directory_of(target_)));
  }
  return manifest_blob;
}

}  // namespace obd::oci
