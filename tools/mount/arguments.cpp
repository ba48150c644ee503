#include "tools/mount/arguments.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <limits>
#include <thread>
#include <utility>

#include "core/io/file.h"
#include "tools/attach/file_system.h"
#include "tools/obd/common.h"
#include "tools/obd/size_text.h"

namespace obd::mount {

Result<void> require_root() {
  if (::geteuid() == 0) return {};
  return fail(EPERM, "only root can attach and mount images: try sudo");
}

void add_state_dir(CLI::App& command, std::string& state_dir) {
  command.add_option("--state-dir", state_dir, "Where attached images are remembered")
      ->type_name("DIR")
      ->capture_default_str();
}

namespace {

void add_size(CLI::App& command, const std::string& name, std::string& size,
              const std::string& description) {
  command.add_option(name, size, description)
      ->check([](const std::string& text) {
        // The server takes no more.
        constexpr uint64_t kMost = std::numeric_limits<int64_t>::max();
        const auto bytes = tool::parse_size(text);
        if (!bytes) return bytes.error().message;
        return *bytes <= kMost ? std::string() : fmt::format("'{}' is too large", text);
      })
      ->type_name("SIZE")
      ->capture_default_str();
}

}  // namespace

AttachArguments::AttachArguments(CLI::App& command) {
  command.add_option("IMAGE", image_, "config.v1.json, or the folder that holds it")->required();
  command.add_flag("-r,--read-only", read_only, "Attach for reading only");
  command.add_option("--fstype", fstype, "The file system on the disk; auto: look")
      ->capture_default_str();
  command.add_option("--mkfs", mkfs, "Make a file system of this type first, if the disk is empty")
      ->type_name("FSTYPE");
  command.add_flag("--untrusted", untrusted,
                   "The disk's content may be hostile: mount nosuid,nodev, and only the type that "
                   "--fstype names");
  command.add_option("--backend", backend_, "How the device is made; auto: nbd where there is one")
      ->check(CLI::IsMember({"auto", "nbd", "fuse"}))
      ->capture_default_str();
  command
      .add_option("--connections", connections_,
                  "Connections to the server (default: 1 for nbd; for fuse as many as there are "
                  "processors, at most 4)")
      ->check(CLI::Range(1, 16));
  add_size(command, "--cache-size", cache_size_, "The server's memory for decompressed blocks");
  add_size(command, "--max-upper-size", max_upper_size_,
           "What the writable layer's files may take of the host; 0: no limit");
  command
      .add_option("--detect-zeroes", detect_zeroes_,
                  "What writes of nothing but zeros do: write them, zero, or give space back")
      ->check(CLI::IsMember({"off", "on", "unmap"}))
      ->capture_default_str();
  command
      .add_option("--gc", gc_,
                  "Give the space of an append layer's dead data back while it is used")
      ->check(CLI::IsMember({"on", "off"}))
      ->capture_default_str();
  add_size(command, "--gc-rate", gc_rate_,
           "Bytes a second that are given back or moved while no write waits; 0: no limit");
  command
      .add_option("--dead-timeout", dead_timeout_,
                  "Seconds that requests wait for a dead server's successor")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command
      .add_option("--request-timeout", request_timeout_,
                  "Seconds after which nbd takes a request for lost; 0: never")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  command.add_option("--plugin", plugin_, "What nbdkit loads (default: overlaybd)")
      ->type_name("PLUGIN");
  command.add_flag("--json", json, "Print containerd's mount list");
  add_state_dir(command, state_dir);
}

Result<void> AttachArguments::check() const {
  if (read_only && !mkfs.empty()) {
    return fail(EINVAL, "--mkfs writes, and --read-only forbids it");
  }
  if (untrusted && fstype == "auto" && mkfs.empty()) {
    return fail(EINVAL, "--untrusted needs --fstype: what is on the disk must not choose");
  }
  return {};
}

Result<attach::AttachRequest> AttachArguments::request() const {
  FileSystem& fs = posix_file_system();
  attach::AttachRequest request;
  OBD_TRY_ASSIGN(const tool::Target target, tool::find_image(fs, image_));
  OBD_TRY_ASSIGN(request.image, fs.canonical(target.path));
  if (!target.config.upper && !read_only) {
    return fail(EROFS, "{}: has no writable layer; attach it with --read-only", request.image);
  }
  if (backend_ == "nbd") request.backend = attach::Backend::nbd;
  if (backend_ == "fuse") request.backend = attach::Backend::fuse;
  request.read_only = read_only;
  request.connections = connections_;
  OBD_TRY_ASSIGN(request.server.cache_size, tool::parse_size(cache_size_));
  OBD_TRY_ASSIGN(request.server.max_upper_size, tool::parse_size(max_upper_size_));
  request.server.detect_zeroes = detect_zeroes_;
  request.server.gc = gc_ == "on";
  OBD_TRY_ASSIGN(request.server.gc_rate, tool::parse_size(gc_rate_));
  request.dead_timeout = dead_timeout_;
  request.request_timeout = request_timeout_;
  // The servers run in another folder. A name without a slash is nbdkit's to find.
  request.plugin = plugin_;
  if (plugin_.find('/') != std::string::npos) {
    OBD_TRY_ASSIGN(request.plugin, fs.canonical(plugin_));
  }
  return request;
}

Result<AttachedImage> AttachedImage::attach(const AttachArguments& arguments) {
  OBD_TRY(require_root());
  OBD_TRY_ASSIGN(const attach::AttachRequest request, arguments.request());
  OBD_TRY_ASSIGN(attach::ImageState state,
                 attach::ImageState::lock(arguments.state_dir, request.image));
  OBD_TRY_ASSIGN(attach::Attached attached, attach::attach(state, request));
  return AttachedImage{.state = std::move(state),
                       .attachment = std::move(attached.attachment),
                       .is_new = attached.is_new};
}

Result<std::string> AttachedImage::file_system(const AttachArguments& arguments) const {
  if (!arguments.mkfs.empty()) {
    OBD_TRY(attach::ensure_file_system(attachment.device, arguments.mkfs));
    return arguments.mkfs;
  }
  if (arguments.fstype != "auto") return arguments.fstype;
  return attach::probe_file_system(attachment.device);
}

std::unexpected<Error> AttachedImage::give_up(Error error) {
  if (is_new) {
    const auto undone = attach::detach(state, attachment, true);
    if (!undone) {
      error.message += fmt::format("; and could not be undone: {}", undone.error().message);
    }
  }
  return std::unexpected(std::move(error));
}

}  // namespace obd::mount
