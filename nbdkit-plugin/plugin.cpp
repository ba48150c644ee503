// nbdkit's callbacks for the overlaybd plugin: each converts its arguments, calls obd::Image, and
// turns an Error into nbdkit's form. Nothing of the engine's work is done here.
//
// The image is opened once, before nbdkit forks, so that the user sees what is wrong with it; all
// connections share it. nbdkit tells only at a connection whether it runs with -r, so the image is
// opened for writing whenever it can be; opening changes none of its files, and without a client
// that may write, nothing else does. Where it can only be read, read-only servers work and others
// refuse their clients.
//
// No exception leaves a callback: nbdkit is C.

#include <atomic>
#include <cerrno>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "core/image/image.h"
#include "nbdkit-plugin/sentence_limit.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

namespace {

// Requests of any length are served, and a client that asks libnbd for strict alignment must not be
// refused them (e2fsck through nbdfuse writes two bytes of a superblock).
constexpr uint32_t kMinimumBlock = 1;
constexpr uint32_t kPreferredBlock = obd::kBlockSize;
constexpr uint32_t kMaximumBlock = 32U << 20;

// A reply to a block status request reports at most what so many runs of the image come to, so that
// one request cannot take long. The client asks again from where the reply ends.
constexpr size_t kMaxRunsPerReply = size_t{1} << 16;

// nbdkit hands its callbacks nothing of ours until a client connects, so this has to be global.
// Except for the atomic, it is written only while nbdkit has one thread.
struct Server {
  std::string config_path;
  uint64_t cache_size = obd::BlockCache::kDefaultCapacity;
  obd::ZeroDetection detect_zeroes = obd::ZeroDetection::off;
  obd::ReclaimOptions reclaim = {.on = true};
  uint64_t max_upper_size = 0;
  std::shared_ptr<obd::LayerStore> layers;  // of the image
  std::unique_ptr<obd::Image> image;
  std::string write_refusal;  // why the image, which has an upper, could only be opened read-only
  std::atomic<bool> had_writer = false;  // a client that may write has connected
  obd::SentenceLimit sentences;
};
Server server;

// What a handle points to. All connections of a server are of one of two kinds.
struct Connection {
  bool readonly;
};
Connection readonly_connection{true};
Connection writable_connection{false};

bool is_writable(void* handle) noexcept {
  return server.image->writable() && !static_cast<const Connection*>(handle)->readonly;
}

void say_how_many_were_kept_back(uint64_t number) noexcept {
  nbdkit_error("%" PRIu64 " more errors were not written to the log", number);
}

int report(const obd::Error& error) noexcept {
  if (const auto kept_back = server.sentences.admit()) {
    if (*kept_back > 0) say_how_many_were_kept_back(*kept_back);
    nbdkit_error("%s", error.message.c_str());
  }
  nbdkit_set_error(error.code);
  return -1;
}

// Runs what a callback has to do and returns what nbdkit wants: 0, or -1 with the error set.
template <typename Action>
int guarded(Action&& action) noexcept {
  try {
    const obd::Result<void> result = action();
    return result ? 0 : report(result.error());
  } catch (const std::bad_alloc&) {
    nbdkit_error("out of memory");
    nbdkit_set_error(ENOMEM);
  } catch (const std::exception& error) {
    nbdkit_error("internal error: %s", error.what());
    nbdkit_set_error(EIO);
  } catch (...) {
    nbdkit_error("internal error");
    nbdkit_set_error(EIO);
  }
  return -1;
}

// ---- before clients ----

obd::Result<void> set_zero_detection(std::string_view value) {
  using enum obd::ZeroDetection;
  for (const auto& [name, detection] : {std::pair<std::string_view, obd::ZeroDetection>{"off", off},
                                        {"on", on},
                                        {"unmap", unmap}}) {
    if (value != name) continue;
    server.detect_zeroes = detection;
    return {};
  }
  return obd::fail(EINVAL, "detect-zeroes={}: is none of off, on and unmap", value);
}

obd::Result<void> set_gc(std::string_view value) {
  if (value != "on" && value != "off") {
    return obd::fail(EINVAL, "gc={}: is neither on nor off", value);
  }
  server.reclaim.on = value == "on";
  return {};
}

// A size parameter; `help` says what else could have been given.
obd::Result<void> set_size(const char* key, const char* value, const char* help, uint64_t& size) {
  const int64_t parsed = nbdkit_parse_size(value);
  if (parsed < 0) return obd::fail(EINVAL, "{}={}: is no size; {}", key, value, help);
  size = static_cast<uint64_t>(parsed);
  return {};
}

int overlaybd_config(const char* key, const char* value) noexcept {
  return guarded([&]() -> obd::Result<void> {
    const std::string_view name = key;
    if (name == "cache-size") {
      return set_size(key, value, "64M is the default, 0 turns it off", server.cache_size);
    }
    if (name == "detect-zeroes") return set_zero_detection(value);
    if (name == "gc") return set_gc(value);
    if (name == "gc-rate") {
      return set_size(key, value, "it is bytes a second, and 0, the default, is no limit",
                      server.reclaim.rate);
    }
    if (name == "max-upper-size") {
      return set_size(key, value, "0, the default, is no limit", server.max_upper_size);
    }
    if (name != "config") {
      return obd::fail(EINVAL,
                       "unknown parameter '{}': the overlaybd plugin has config=PATH, "
                       "cache-size=SIZE, detect-zeroes=off|on|unmap, gc=on|off, gc-rate=SIZE and "
                       "max-upper-size=SIZE",
                       key);
    }
    if (!server.config_path.empty()) {
      return obd::fail(EINVAL, "config= is given twice: one server serves one image");
    }
    if (*value == '\0') return obd::fail(EINVAL, "config= is empty: name an image's config file");
    // nbdkit changes its folder when it goes into the background.
    const std::unique_ptr<char, decltype(&std::free)> path(nbdkit_absolute_path(value), &std::free);
    if (!path) return obd::fail(EINVAL, "config={}: cannot be made an absolute path", value);
    OBD_TRY_ASSIGN(server.config_path, obd::config_at(obd::posix_file_system(), path.get()));
    return {};
  });
}

int overlaybd_config_complete() noexcept {
  return guarded([]() -> obd::Result<void> {
    if (server.config_path.empty()) {
      return obd::fail(EINVAL, "no image is named: run nbdkit overlaybd [config=]IMAGE.json");
    }
    return {};
  });
}

// Reasons for which an image can perhaps still be read: no permission to write, read-only media, a
// format feature that only readers can ignore, a log that was emptied, a sparse file with two
// names.
bool may_still_be_readable(const obd::Error& error) {
  return error.code == EACCES || error.code == EPERM || error.code == EROFS ||
         error.code == ENOTSUP || error.code == EUCLEAN || error.code == EMLINK;
}

obd::Result<void> open_image() {
  obd::FileSystem& fs = obd::posix_file_system();
  server.layers =
      std::make_shared<obd::LayerStore>(std::make_shared<obd::BlockCache>(server.cache_size));
  obd::OpenOptions options{.access = obd::Access::read_write,
                           .layers = server.layers,
                           .detect_zeroes = server.detect_zeroes,
                           .reclaim = server.reclaim,
                           .max_upper_size = server.max_upper_size};
  auto image = obd::Image::open(fs, server.config_path, options);
  if (!image && may_still_be_readable(image.error())) {
    options.access = obd::Access::read_only;
    auto readable = obd::Image::open(fs, server.config_path, options);
    if (readable) {
      server.write_refusal = image.error().message;
      nbdkit_error("warning: the image can only be served read-only, with nbdkit -r: %s",
                   server.write_refusal.c_str());
      image = std::move(readable);
    }
  }
  if (!image) return std::unexpected(image.error());
  server.image = std::move(*image);
  for (const std::string& warning : server.image->config().warnings) {
    nbdkit_error("warning: %s", warning.c_str());
  }
  OBD_TRY_ASSIGN(const auto layers, server.image->layers());
  for (const obd::LayerInfo& layer : layers) {
    for (const std::string& warning : layer.warnings) nbdkit_error("warning: %s", warning.c_str());
  }
  return {};
}

int overlaybd_get_ready() noexcept { return guarded(open_image); }

int overlaybd_after_fork() noexcept {
  return guarded([]() -> obd::Result<void> {
    // The locks were taken by the process that has just exited.
    OBD_TRY(server.image->refresh_lock_holder());
    server.image->start_reclaim();
    return {};
  });
}

// ---- after clients ----

void log_stats(const obd::ImageStats& stats, const obd::BlockCache::Stats& cache) noexcept {
  const auto number = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  nbdkit_debug(
      "overlaybd: %llu reads (%llu bytes), %llu writes (%llu bytes), %llu zeroes and trims "
      "(%llu bytes), %llu flushes by %llu syncs",
      number(stats.reads), number(stats.read_bytes), number(stats.writes),
      number(stats.write_bytes), number(stats.zeroes), number(stats.zero_bytes),
      number(stats.flushes), number(stats.syncs));
  nbdkit_debug("overlaybd: space reclaim: %llu bytes punched, %llu moved, %llu new index logs",
               number(stats.punched_bytes), number(stats.moved_bytes),
               number(stats.log_checkpoints));
  nbdkit_debug("overlaybd: block cache: %llu hits, %llu misses, %llu bytes", number(cache.hits),
               number(cache.misses), number(cache.bytes));
}

void overlaybd_cleanup() noexcept {
  if (const uint64_t number = server.sentences.kept_back(); number > 0) {
    say_how_many_were_kept_back(number);
  }
  if (!server.image) return;
  // The status has nowhere to go: what matters is that the log tells it.
  static_cast<void>(guarded([]() -> obd::Result<void> {
    const std::unique_ptr<obd::Image> image = std::move(server.image);
    log_stats(image->stats(), server.layers->cache().stats());
    // Closing would stabilise what an earlier, killed server has left: nbdkit -r must not.
    if (!server.had_writer) return {};
    return image->close();
  }));
}

void overlaybd_dump_plugin() noexcept {
  std::printf("overlaybd_version=%s\n", OBD_VERSION);
  std::printf("overlaybd_formats=lsmt,zfile,tar\n");
  std::printf("overlaybd_upper_kinds=append,sparse\n");
  std::printf("overlaybd_max_lowers=%zu\n", obd::kMaxLowers);
}

// ---- a client connects ----

void* overlaybd_open(int readonly) noexcept {
  if (readonly == 0 && !server.write_refusal.empty()) {
    nbdkit_error("%s; start nbdkit with -r to serve it read-only", server.write_refusal.c_str());
    return nullptr;
  }
  if (readonly != 0) return &readonly_connection;
  server.had_writer = true;
  return &writable_connection;
}

int64_t overlaybd_get_size(void*) noexcept {
  return static_cast<int64_t>(server.image->size());  // at most kMaxDiskSize
}

int overlaybd_block_size(void*, uint32_t* minimum, uint32_t* preferred,
                         uint32_t* maximum) noexcept {
  *minimum = kMinimumBlock;
  *preferred = kPreferredBlock;
  *maximum = kMaximumBlock;
  return 0;
}

const char* overlaybd_export_description(void*) noexcept {
  const char* description = nullptr;
  static_cast<void>(guarded([&]() -> obd::Result<void> {
    OBD_TRY_ASSIGN(const auto layers, server.image->layers());
    const obd::ImageConfig& config = server.image->config();
    const std::string upper = config.upper ? layers.back().kind + " upper" : "no upper";
    const size_t lowers = config.lowers.size();
    description =
        nbdkit_strdup_intern(fmt::format("overlaybd image, {} lower{}, {}, config {}", lowers,
                                         lowers == 1 ? "" : "s", upper, server.config_path)
                                 .c_str());
    return {};
  }));
  return description;
}

int overlaybd_can_write(void* handle) noexcept { return is_writable(handle) ? 1 : 0; }
int overlaybd_can_trim(void* handle) noexcept { return is_writable(handle) ? 1 : 0; }
int overlaybd_can_zero(void* handle) noexcept { return is_writable(handle) ? 1 : 0; }
// The answer is always fast, be it that this range cannot be zeroed fast.
int overlaybd_can_fast_zero(void*) noexcept { return 1; }
int overlaybd_can_flush(void*) noexcept { return 1; }
int overlaybd_can_fua(void*) noexcept { return NBDKIT_FUA_NATIVE; }
int overlaybd_can_extents(void*) noexcept { return 1; }
int overlaybd_can_cache(void*) noexcept { return NBDKIT_CACHE_NATIVE; }
// All connections share one image, which holds nothing back from any of them.
int overlaybd_can_multi_conn(void*) noexcept { return 1; }
int overlaybd_is_rotational(void*) noexcept { return 0; }

// ---- requests ----

bool has_fua(uint32_t flags) { return (flags & NBDKIT_FLAG_FUA) != 0; }

int overlaybd_pread(void*, void* buffer, uint32_t count, uint64_t offset, uint32_t) noexcept {
  return guarded(
      [&] { return server.image->read({static_cast<std::byte*>(buffer), count}, offset); });
}

int overlaybd_pwrite(void*, const void* buffer, uint32_t count, uint64_t offset,
                     uint32_t flags) noexcept {
  return guarded([&] {
    return server.image->write({static_cast<const std::byte*>(buffer), count}, offset,
                               {.fua = has_fua(flags)});
  });
}

int overlaybd_zero(void*, uint32_t count, uint64_t offset, uint32_t flags) noexcept {
  const bool fast_only = (flags & NBDKIT_FLAG_FAST_ZERO) != 0;
  bool refused = false;
  const int status = guarded([&] {
    obd::Result<void> zeroed = server.image->zero(offset, count,
                                                  {.fua = has_fua(flags),
                                                   .may_trim = (flags & NBDKIT_FLAG_MAY_TRIM) != 0,
                                                   .fast_only = fast_only});
    // A client that asks for a fast zero expects to be refused at times: nothing to complain of.
    refused = fast_only && !zeroed && zeroed.error().code == EOPNOTSUPP;
    return refused ? obd::Result<void>() : std::move(zeroed);
  });
  if (!refused) return status;
  nbdkit_set_error(EOPNOTSUPP);
  return -1;
}

int overlaybd_trim(void*, uint32_t count, uint64_t offset, uint32_t flags) noexcept {
  return guarded([&] { return server.image->trim(offset, count, {.fua = has_fua(flags)}); });
}

int overlaybd_flush(void* handle, uint32_t) noexcept {
  if (!is_writable(handle)) return 0;  // has written nothing
  return guarded([] { return server.image->flush(); });
}

int overlaybd_cache(void*, uint32_t count, uint64_t offset, uint32_t) noexcept {
  return guarded([&] { return server.image->prefetch(offset, count); });
}

int overlaybd_extents(void*, uint32_t count, uint64_t offset, uint32_t flags,
                      struct nbdkit_extents* extents) noexcept {
  return guarded([&]() -> obd::Result<void> {
    // For a client, runs in different layers or places are one run: a client that asks for one
    // extent gets all that is of the same type.
    std::optional<uint32_t> first_type;
    size_t runs = 0;
    int add_error = 0;
    OBD_TRY(server.image->extents(offset, count, [&](const obd::ImageExtent& run) {
      const uint32_t type =
          run.kind == obd::ExtentKind::data ? 0 : NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
      if ((flags & NBDKIT_FLAG_REQ_ONE) != 0 && first_type && *first_type != type) return false;
      first_type = type;
      if (nbdkit_add_extent(extents, run.offset, run.length, type) == -1) {
        add_error = errno != 0 ? errno : ENOMEM;
        return false;
      }
      return ++runs < kMaxRunsPerReply;
    }));
    if (add_error != 0) {
      return obd::fail(add_error, "{}: cannot report the extents at offset {}", server.config_path,
                       offset);
    }
    return {};
  });
}

constexpr const char* kDescription =
    "Serves a layered disk image in the overlaybd format: sealed layers, and at most one\n"
    "writable layer on top of them.";

constexpr const char* kConfigHelp =
    "[config=]<PATH>    (required) The image's config file, config.v1.json, or its folder.\n"
    "cache-size=<SIZE>  Memory for decompressed blocks of the lowers, 0 for none (default: 64M).\n"
    "detect-zeroes=off|on|unmap\n"
    "                   Turn writes of zeros into zeroing; unmap gives the space back (default: "
    "off).\n"
    "gc=on|off          Give dead space of an append layer back meanwhile (default: on).\n"
    "gc-rate=<SIZE>     At most so many bytes a second, while writes need not wait (default: 0, "
    "no\n"
    "                   limit).\n"
    "max-upper-size=<SIZE>\n"
    "                   The writable layer's files may take so much; then: no space left "
    "(default:\n"
    "                   0, no limit).";

struct nbdkit_plugin make_plugin() {
  struct nbdkit_plugin plugin = {};
  plugin.name = "overlaybd";
  plugin.longname = "overlaybd layered disk image";
  plugin.version = OBD_VERSION;
  plugin.description = kDescription;
  plugin.config = overlaybd_config;
  plugin.config_complete = overlaybd_config_complete;
  plugin.config_help = kConfigHelp;
  plugin.magic_config_key = "config";
  plugin.dump_plugin = overlaybd_dump_plugin;
  plugin.get_ready = overlaybd_get_ready;
  plugin.after_fork = overlaybd_after_fork;
  plugin.cleanup = overlaybd_cleanup;
  plugin.open = overlaybd_open;
  plugin.get_size = overlaybd_get_size;
  plugin.block_size = overlaybd_block_size;
  plugin.export_description = overlaybd_export_description;
  plugin.can_write = overlaybd_can_write;
  plugin.can_trim = overlaybd_can_trim;
  plugin.can_zero = overlaybd_can_zero;
  plugin.can_fast_zero = overlaybd_can_fast_zero;
  plugin.can_flush = overlaybd_can_flush;
  plugin.can_fua = overlaybd_can_fua;
  plugin.can_extents = overlaybd_can_extents;
  plugin.can_cache = overlaybd_can_cache;
  plugin.can_multi_conn = overlaybd_can_multi_conn;
  plugin.is_rotational = overlaybd_is_rotational;
  plugin.pread = overlaybd_pread;
  plugin.pwrite = overlaybd_pwrite;
  plugin.zero = overlaybd_zero;
  plugin.trim = overlaybd_trim;
  plugin.flush = overlaybd_flush;
  plugin.cache = overlaybd_cache;
  plugin.extents = overlaybd_extents;
  return plugin;
}

struct nbdkit_plugin plugin = make_plugin();

}  // namespace

NBDKIT_REGISTER_PLUGIN(plugin)
