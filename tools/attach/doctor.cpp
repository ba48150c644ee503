#include "tools/attach/doctor.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/io/file.h"
#include "tools/attach/attach.h"
#include "tools/attach/front_end.h"
#include "tools/attach/nbd_kernel.h"
#include "tools/attach/state_folder.h"
#include "tools/attach/supervisor.h"
#include "tools/obd/program.h"

namespace obd::attach {
namespace {

std::string kernel_release() {
  utsname name{};
  return ::uname(&name) == 0 ? name.release : "unknown";
}

std::string machine() {
  utsname name{};
  return ::uname(&name) == 0 ? name.machine : "x86_64";
}

Finding examine_rights() {
  if (::geteuid() == 0) return {"root", Verdict::good, "this is root"};
  return {"root", Verdict::bad, "only root can attach and mount"};
}

Finding examine_nbd() {
  const auto kernel = NbdKernel::open();
  if (kernel) return {"nbd", Verdict::good, "the kernel has nbd"};
  return {"nbd", Verdict::missing,
          fmt::format("kernel {}: {}", kernel_release(), kernel.error().message)};
}

Finding examine_device(const char* what, const char* path, const char* without) {
  if (::access(path, R_OK | W_OK) == 0)
    return {what, Verdict::good, fmt::format("{} is there", path)};
  return {what, Verdict::missing, fmt::format("{}: {}; {}", path, std::strerror(errno), without)};
}

Finding examine_front_end() {
  const auto program = find_front_end();
  if (program) return {"obd-fuse", Verdict::good, *program};
  return {"obd-fuse", Verdict::missing, program.error().message + "; --backend fuse needs it"};
}

Finding examine_nbdkit() {
  const auto program = tool::find_program("nbdkit");
  if (!program) return {"nbdkit", Verdict::bad, program.error().message + ": install nbdkit"};
  return {"nbdkit", Verdict::good, *program};
}

Finding examine_plugin() {
  const std::string plugin = find_plugin();
  const auto nbdkit = tool::find_program("nbdkit");
  if (!nbdkit) return {"plugin", Verdict::bad, "cannot be looked for without nbdkit"};
  const auto status =
      tool::run_program({*nbdkit, plugin, "--version"}, tool::ProgramOutput::discarded);
  if (status && *status == 0) return {"plugin", Verdict::good, plugin};
  return {"plugin", Verdict::bad,
          fmt::format("nbdkit cannot load '{}': install it, or name it with --plugin", plugin)};
}

// Only who gives disks to VMs needs it, and who runs the tests.
Finding examine_qemu() {
  const std::string name = fmt::format("qemu-system-{}", machine());
  const auto program = tool::find_program(name);
  if (!program) {
    return {"qemu", Verdict::missing,
            program.error().message + "; VMs and the tests in VMs need it"};
  }
  if (::access("/dev/kvm", R_OK | W_OK) == 0) return {"qemu", Verdict::good, *program};
  return {"qemu", Verdict::good,
          fmt::format("{}; slow, for want of /dev/kvm ({})", *program, std::strerror(errno))};
}

Finding examine_image(const std::string& state_dir, const std::string& id) {
  const StatePaths paths(state_dir, id);
  const auto attachment = look_at(paths);
  if (!attachment) return {id, Verdict::missing, attachment.error().message};
  const std::string repair = "; `obd-mount recover` puts it in order";
  if (!*attachment)
    return {id, Verdict::missing,
            "is coming or going, or was interrupted, or its attachment.json was removed" + repair};
  const Attachment& image = **attachment;
  const auto boot_id = posix_file_system().boot_id();
  if (boot_id && *boot_id != image.boot_id) {
    return {image.image, Verdict::missing, "was attached before the last boot" + repair};
  }
  if (image.phase != Phase::attached) {
    return {image.image, Verdict::missing,
            fmt::format("is {}, or that was interrupted{}", to_text(image.phase), repair)};
  }
  if (!is_alive(paths, image)) {
    return {image.image, Verdict::missing, fmt::format("{} is dead{}", image.device, repair)};
  }
  if (!is_supervised(paths)) {
    return {image.image, Verdict::missing,
            fmt::format("{} has no supervisor{}", image.device, repair)};
  }
  return {image.image, Verdict::good, image.device};
}

}  // namespace

std::string_view to_text(Verdict verdict) {
  switch (verdict) {
    case Verdict::good:
      return "good";
    case Verdict::missing:
      return "missing";
    case Verdict::bad:
      return "bad";
  }
  return "";
}

std::vector<Finding> examine_host(const std::string& state_dir) {
  std::vector<Finding> findings = {
      examine_rights(),
      examine_nbdkit(),
      examine_plugin(),
      examine_nbd(),
      examine_device("fuse", "/dev/fuse", "--backend fuse needs it (modprobe fuse)"),
      examine_device("loop", "/dev/loop-control", "--backend fuse needs it (modprobe loop)"),
      examine_front_end(),
      examine_qemu()};
  const auto is_missing = [&](std::string_view what) {
    for (const Finding& finding : findings) {
      if (finding.what == what) return finding.verdict != Verdict::good;
    }
    return true;
  };
  if (is_missing("nbd") && (is_missing("fuse") || is_missing("loop") || is_missing("obd-fuse"))) {
    findings.push_back(
        {"back ends", Verdict::bad, "neither nbd nor fuse can be used on this host"});
  }
  const auto ids = list_ids(state_dir);
  if (!ids) {
    findings.push_back({"state", Verdict::bad, ids.error().message});
    return findings;
  }
  for (const std::string& id : *ids) findings.push_back(examine_image(state_dir, id));
  return findings;
}

}  // namespace obd::attach
