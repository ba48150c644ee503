// An OCI image layout whose layers are overlaybd blobs: each a tar file with one member,
// `overlaybd.commit`, which the manifest's annotations tell of as overlaybd's converter does.
//
// Sources: OCI image-spec (image-layout, manifest, config); overlaybd's annotations:
// docs/format.md.
//
// The layout is made in a folder beside its target and takes its name when it is whole and stable;
// so does the tar file that holds one.
//
// Thread-safety: none. Errors: those of the files; EEXIST when the target is there.

#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/base/progress.h"
#include "core/io/file.h"

namespace obd::oci {

using Json = nlohmann::ordered_json;

struct Descriptor {
  std::string digest;
  uint64_t size = 0;  // bytes
};

struct ImageDescription {
  std::string name;                   // "HOST/NAME:TAG"; empty: none
  std::string file_system;            // of the disk, as in "ext4"; empty: not known
  Json config;                        // an OCI image config to start from, an object; may be empty
  int64_t created = 0;                // seconds
  std::vector<std::string> comments;  // of the layers, for the history
};

class Layout {
 public:
  // Makes the temporary folder beside `target`, which must not exist.
  static Result<Layout> create(FileSystem& fs, const std::string& target);
  Layout(Layout&& other) noexcept;
  Layout& operator=(Layout&&) = delete;
  ~Layout();

  // The temporary folder: for what a caller needs for a while.
  [[nodiscard]] const std::string& folder() const { return folder_; }

  // Adds a layer: `range` of a file, in a tar file.
  Result<Descriptor> add_layer(const File& file, ByteRange range, const ReportProgress& report);

  // Adds config, manifest and index, and gives the layout its name: as a folder, or, `as_tar`, as a
  // tar file. Returns the manifest.
  Result<Descriptor> finish(const ImageDescription& image, bool as_tar,
                            const ReportProgress& report);

 private:
  Layout(FileSystem& fs, std::string target, std::string folder)
      : fs_(&fs), target_(std::move(target)), folder_(std::move(folder)) {}

  Result<Descriptor> add_text(const std::string& text);
  Result<void> write_text(const std::string& path, const std::string& text);
  Result<void> pack(int64_t created, const ReportProgress& report);

  FileSystem* fs_;
  std::string target_;
  std::string folder_;  // empty: moved from, or finished
  std::vector<Descriptor> layers_;
  std::vector<std::string> blobs_;  // paths within the folder
};

// The ustar header of a plain file with such a name, of at most 100 bytes, and size.
std::string tar_file_header(const std::string& name, uint64_t size, int64_t mtime);

// "ext4", "xfs", "erofs"; empty when the disk starts with none of them. `start` is the first 2 KiB.
std::string file_system_in(std::span<const std::byte> start);

// "localhost/app" gets the tag that is meant: "localhost/app:latest".
std::string with_tag(const std::string& name);

}  // namespace obd::oci
