// Options that several subcommands have.

#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "tools/attach/attach.h"

namespace obd::mount {

void add_state_dir(CLI::App& command, std::string& state_dir);

// Whoever makes block devices, mounts or takes them away has to be root.
Result<void> require_root();

// How to attach: dev and dir.
class AttachArguments {
 public:
  explicit AttachArguments(CLI::App& command);

  // Whether the options go together.
  [[nodiscard]] Result<void> check() const;

  // Of the image that the user named, found and checked.
  [[nodiscard]] Result<attach::AttachRequest> request() const;

  std::string state_dir = attach::kDefaultStateDir;
  bool read_only = false;
  bool untrusted = false;
  bool json = false;
  std::string fstype = "auto";
  std::string mkfs;

 private:
  std::string image_;
  std::string backend_ = "auto";
  std::string cache_size_ = "64M";
  std::string max_upper_size_ = "0";
  std::string detect_zeroes_ = "off";
  std::string gc_ = "on";
  std::string gc_rate_ = "0";
  std::string plugin_;
  unsigned connections_ = 0;  // 0: what suits the back end
  unsigned dead_timeout_ = 300;
  unsigned request_timeout_ = 0;
};

// An attached image with a file system on it; what was attached for this call alone is detached
// again when it is not kept.
class AttachedImage {
 public:
  static Result<AttachedImage> attach(const AttachArguments& arguments);

  // The file system's type: as asked for, made, or found. Empty when there is none.
  Result<std::string> file_system(const AttachArguments& arguments) const;

  // The error with which this call fails, after undoing what it has done.
  std::unexpected<Error> give_up(Error error);

  attach::ImageState state;
  attach::Attachment attachment;
  bool is_new;
};

}  // namespace obd::mount
