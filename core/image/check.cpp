#include "core/image/check.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "core/image/config.h"
#include "core/image/image.h"

namespace obd {
namespace {

// Errors that say nothing about the data: it could not be looked at, or this version cannot read
// it.
bool means_unseen(int code) {
  return code == EACCES || code == EPERM || code == EBUSY || code == ENOTSUP || code == EIO ||
         code == ENOMEM || code == EMFILE || code == ENFILE;
}

void add_error(const Error& error, CheckReport& report) {
  if (means_unseen(error.code)) report.complete = false;
  if (error.code == EBUSY) report.in_use = true;
  report.findings.push_back({!means_unseen(error.code), error.message});
}

void add_warnings(const std::vector<std::string>& warnings, CheckReport& report) {
  for (const std::string& warning : warnings) report.findings.push_back({false, warning});
}

std::unique_ptr<SealedLayer> check_layer(FileSystem& fs, const std::string& path,
                                         CheckReport& report) {
  auto layer = SealedLayer::open(fs, path);
  if (!layer) {
    add_error(layer.error(), report);
    return nullptr;
  }
  add_warnings((*layer)->warnings(), report);
  return std::move(*layer);
}

void check_parent(const lsmt::Header& child, const std::string& child_path, const Uuid& below,
                  CheckReport& report) {
  if (child.parent_uuid.is_nil() || below.is_nil() || child.parent_uuid == below) return;
  report.findings.push_back(
      {false,
       fmt::format("{}: parent_uuid {} is not the uuid {} of the layer below: the layers may "
                   "not belong together",
                   child_path, child.parent_uuid.text(), below.text())});
}

void check_upper(FileSystem& fs, const ImageConfig& config, uint64_t lowers_size, const Uuid& below,
                 bool force_share, CheckReport& report) {
  const WritableLayer::Options options{Access::read_only, force_share, lowers_size};
  const auto opened = WritableLayer::open(fs, config.upper->data, config.upper->index, options);
  if (!opened) {
    add_error(opened.error(), report);
    return;
  }
  const WritableLayer& upper = **opened;
  const auto& losses = upper.losses();
  for (const std::string& warning : upper.warnings()) {
    const bool lost = std::find(losses.begin(), losses.end(), warning) != losses.end();
    report.findings.push_back({lost, warning});
  }
  if (upper.sealed_in_place()) {
    report.findings.push_back(
        {true,
         fmt::format("{}: the upper is sealed already, but the config does not say so; run 'obd "
                     "seal {}' to finish sealing",
                     config.upper->data, config.path)});
  }
  check_parent(upper.header(), config.upper->data, below, report);
}

// Harmless, as the upper one hides the lower, but hardly what somebody meant.
Result<void> check_repeated_lowers(FileSystem& fs, const ImageConfig& config, CheckReport& report) {
  std::map<std::pair<uint64_t, uint64_t>, size_t> seen;  // device and inode
  for (size_t i = 0; i < config.lowers.size(); ++i) {
    const auto file = fs.open(config.lowers[i], Access::read_only);
    if (!file) continue;  // that is among the findings
    OBD_TRY_ASSIGN(const FileInfo info, (*file)->info());
    const auto [first, is_new] = seen.try_emplace({info.device, info.inode}, i);
    if (is_new) continue;
    report.findings.push_back(
        {false,
         fmt::format("{}: lowers[{}] {} is the same file as lowers[{}]: a layer belongs into "
                     "a stack once",
                     config.path, i, config.lowers[i], first->second)});
  }
  return {};
}

}  // namespace

Result<bool> is_config_file(FileSystem& fs, const std::string& path) {
  OBD_TRY_ASSIGN(const auto file, fs.open(path, Access::read_only));
  std::array<std::byte, 4096> start{};
  OBD_TRY_ASSIGN(const size_t got, file->read_at(start, 0));
  for (size_t i = 0; i < got; ++i) {
    const char c = static_cast<char>(start[i]);
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') continue;
    return c == '{' || c == '[';
  }
  return false;
}

Result<CheckReport> check_image_or_layer(FileSystem& fs, const std::string& path,
                                         bool force_share) {
  CheckReport report;
  OBD_TRY_ASSIGN(const bool is_config, is_config_file(fs, path));
  if (!is_config) {
    (void)check_layer(fs, path, report);
    return report;
  }

  const auto config = load_config(fs, path);
  if (!config) {
    add_error(config.error(), report);
    return report;
  }
  add_warnings(config->warnings, report);
  if (config->lowers.empty() && !config->upper) {
    report.findings.push_back(
        {true, fmt::format("{}: the image has neither lowers nor an upper", path)});
  }
  if (config->lowers.size() > kMaxLowers) {
    report.findings.push_back(
        {true, fmt::format("{}: {} lowers are more than the {} that an image can have", path,
                           config->lowers.size(), kMaxLowers)});
  }
  uint64_t lowers_size = 0;
  Uuid below;
  for (const std::string& lower : config->lowers) {
    const auto layer = check_layer(fs, lower, report);
    if (!layer) {
      below = Uuid();  // unknown
      continue;
    }
    check_parent(layer->trailer(), lower, below, report);
    below = layer->trailer().uuid;
    if (layer->trailer().virtual_size != 0) lowers_size = layer->trailer().virtual_size;
  }
  OBD_TRY(check_repeated_lowers(fs, *config, report));
  if (config->upper) check_upper(fs, *config, lowers_size, below, force_share, report);

  // Each part is right; what is left is whether they make an image together.
  const bool any_wrong = std::any_of(report.findings.begin(), report.findings.end(),
                                     [](const Finding& finding) { return finding.wrong; });
  if (!any_wrong && report.complete) {
    OpenOptions look{Access::read_only, force_share};
    if (const auto image = Image::open(fs, *config, look); !image) add_error(image.error(), report);
  }
  return report;
}

}  // namespace obd
