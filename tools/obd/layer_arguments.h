// The options of the commands that make a sealed layer from others, and how they tell of it.
//
// Thread-safety: none.

#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "core/image/layer_copy.h"

namespace obd::tool {

// How the layer is stored.
struct BlobArguments {
  std::string compression = "none";
  std::string block_size;
  bool tar = false;
  unsigned threads = 0;
};

// Adds --compress, --block-size, --tar and --threads.
void add_blob_arguments(CLI::App& command, BlobArguments& arguments);
Result<BlobOptions> blob_options(const BlobArguments& arguments);

struct LayerArguments {
  std::string path;
  std::string uuid;
  std::string parent_uuid;
  std::string message;
  bool force = false;  // LayerOutput has it as options.overwrite
  BlobArguments blob;
};

// Adds -o, --uuid, --parent-uuid, --message, --force and the blob arguments; the texts say what the
// UUIDs are by default.
void add_layer_arguments(CLI::App& command, LayerArguments& arguments,
                         const std::string& default_uuid, const std::string& default_parent);

// What the arguments come to. Looks at no file: the caller goes on with refuse_taken().
Result<LayerOutput> layer_output(const LayerArguments& arguments);

// "disk of 10 GiB, 1.2 GiB of data, 3 MiB of zeros; wrote 400 MiB, compressed to 33.3 %"
std::string layer_summary(const LayerInfo& layer);
// The last part of that alone.
std::string size_summary(const LayerInfo& layer);

}  // namespace obd::tool
