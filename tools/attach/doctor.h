// What this host can do, and what on it is stale.
//
// Thread-safety: none. Never fails: what cannot be found out is a finding.

#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace obd::attach {

enum class Verdict {
  good,
  missing,  // something works less well, or not in every way
  bad,      // nothing works without it
};
std::string_view to_text(Verdict verdict);

struct Finding {
  std::string what;  // "nbd", "fuse", ...
  Verdict verdict = Verdict::good;
  std::string detail;  // one sentence: how it is, and what to do about it
};

// Loads the nbd module where that is all that is missing.
std::vector<Finding> examine_host(const std::string& state_dir);

}  // namespace obd::attach
