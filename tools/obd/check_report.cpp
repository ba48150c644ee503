#include "tools/obd/check_report.h"

#include <algorithm>

#include "tools/obd/command.h"
#include "tools/obd/interrupt.h"

namespace obd::tool {

int status_of(const CheckReport& report) {
  if (std::ranges::any_of(report.findings, &Finding::wrong)) return kExitFailure;
  return report.complete ? kExitSuccess : kExitCouldNotLook;
}

int worse(int a, int b) {
  for (const int status : {kExitFailure, kExitCouldNotLook}) {
    if (a == status || b == status) return status;
  }
  return kExitSuccess;
}

Json check_json(const std::string& path, const CheckReport& report) {
  Json json = {{"path", path},
               {"clean", status_of(report) == kExitSuccess},
               {"complete", report.complete},
               {"findings", Json::array()}};
  for (const Finding& finding : report.findings) {
    json["findings"].push_back(
        {{"severity", finding.wrong ? "wrong" : "warning"}, {"text", finding.text}});
  }
  return json;
}

void print_findings(const CheckReport& report) {
  for (const Finding& finding : report.findings) {
    fmt::print("{}: {}\n", finding.wrong ? "wrong" : "warning", finding.text);
  }
}

std::string verdict(const CheckReport& report) {
  const auto wrong = static_cast<uint64_t>(std::ranges::count_if(report.findings, &Finding::wrong));
  const uint64_t warnings = report.findings.size() - wrong;
  std::string text = wrong != 0        ? fmt::format("{} wrong", counted(wrong, "thing"))
                     : report.complete ? "clean"
                                       : "nothing wrong found";
  if (warnings != 0) text += ", " + counted(warnings, "warning");
  if (!report.complete) text += "; not everything could be looked at";
  if (report.in_use) text += " (-U looks at an image that is in use)";
  return text;
}

int could_not_look_if_failed(const Result<int>& status) {
  if (status) return *status;
  die_if_interrupted();
  fmt::print(stderr, "obd: {}\n", status.error().message);
  return kExitCouldNotLook;
}

}  // namespace obd::tool
