// What is known of an image that is attached, or was when somebody died: the file attachment.json
// in its folder of the state folder.
//
// It is written before each thing that it names comes to be, so it may name what is not there; it
// is believed only after the kernel has been asked. Thread-safety: plain values. Errors: EINVAL
// names the file and what is wrong with it.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace obd::attach {

enum class Backend { nbd, fuse };
std::string_view to_text(Backend backend);

enum class Phase {
  attaching,  // whoever does that holds the lock; without one it was interrupted
  attached,
  detaching,
};
std::string_view to_text(Phase phase);

// A directory on which this project has mounted the disk.
struct MountPoint {
  std::string directory;
  std::string fstype;
  std::vector<std::string> options;
};

// How every identifier begins.
inline constexpr std::string_view kIdentifierPrefix = "obd:";

// What the server is told besides the image; what is not said is the plugin's default. The plugin
// knows what each of them means (docs/nbdkit-overlaybd-plugin.pod).
struct ServerOptions {
  uint64_t cache_size = 64 << 20;     // bytes
  uint64_t max_upper_size = 0;        // bytes; 0: no limit
  std::string detect_zeroes = "off";  // off, on, unmap
  bool gc = true;
  uint64_t gc_rate = 0;  // bytes a second; 0: no limit
};

struct Attachment {
  std::string image;  // path of the config file, without links
  Phase phase = Phase::attaching;
  Backend backend = Backend::nbd;
  bool read_only = false;
  unsigned connections = 1;
  unsigned dead_timeout = 0;     // seconds that requests wait for a dead server
  unsigned request_timeout = 0;  // seconds; 0: none
  std::string plugin;            // what nbdkit is told to load
  ServerOptions server;
  std::string identifier;  // the kernel keeps it with an nbd device: proof that it is ours
  std::string boot_id;     // of the host when it was attached
  std::string device;      // empty: not known yet
  bool held = false;       // handed out as a device: stays when the last mount goes
  std::vector<MountPoint> mounts;
};

std::string to_json(const Attachment& attachment);
Result<Attachment> parse_attachment(const std::string& path, const std::string& text);

// How the server has fared, written by its supervisor alone: the file server.json.
struct ServerStatus {
  unsigned restarts = 0;
  bool given_up = false;   // died again and again, and is left down
  std::string last_words;  // of the server that died last; empty when none did
};

std::string to_json(const ServerStatus& status);
Result<ServerStatus> parse_server_status(const std::string& path, const std::string& text);

}  // namespace obd::attach
