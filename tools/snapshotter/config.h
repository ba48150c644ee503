// The snapshotter's config file: overlaybd-snapshotter's JSON, in which comments are allowed.
//
// Thread-safety: plain values. Errors: EINVAL names the file, the key and the value.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/layer/writable_layer.h"
#include "tools/snapshotter/log.h"

namespace obd::snapshotter {

inline constexpr const char* kDefaultConfigPath = "/etc/overlaybd-snapshotter/config.json";

// What a container gets to write to.
enum class Mode {
  overlayfs,  // a folder, overlaid on the image's disk or folders
  dir,        // a disk of its own, mounted
  dev,        // a disk of its own, as a block device
};
std::string_view to_text(Mode mode);
// nullopt: none of them.
std::optional<Mode> parse_mode(std::string_view text);

struct Exporter {
  bool enable = false;
  std::string uri_prefix = "/metrics";
  uint16_t port = 9863;
};

struct Config {
  std::string root = "/var/lib/overlaybd";
  std::string address = "/run/overlaybd-snapshotter/overlaybd.sock";
  LogLevel verbose = LogLevel::info;
  Mode mode = Mode::overlayfs;
  UpperKind writable_layer = UpperKind::append;
  bool auto_remove_dev = false;
  bool async_remove = false;
  std::string default_fs_type = "ext4";
  Exporter exporter;
  uint64_t rootfs_quota = 0;  // bytes; 0: none
  // Not overlaybd's: where attached images are remembered, how devices are made, and the plugin.
  std::string state_dir = "/run/obd";
  std::string backend = "auto";
  std::string plugin;
  std::vector<std::string> warnings;  // keys that have no effect
};

// Without a file at the default path, the defaults.
Result<Config> load_config_file(const std::string& path);
Result<Config> parse_config(const std::string& path, const std::string& text);

// The size that a quota is: bytes, or with a unit as in 20g.
Result<uint64_t> parse_quota(std::string_view text);

}  // namespace obd::snapshotter
