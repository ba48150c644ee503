// How check and verify tell what they found.
//
// Thread-safety: none.

#pragma once

#include <string>

#include "core/image/check.h"
#include "tools/obd/common.h"

namespace obd::tool {

// The exit status that a report comes to.
int status_of(const CheckReport& report);
// Of two exit statuses, the one that says more: what is known to be wrong before what is not known.
int worse(int a, int b);

Json check_json(const std::string& path, const CheckReport& report);

// A line for each finding.
void print_findings(const CheckReport& report);
// "clean", "1 thing wrong, 2 warnings"
std::string verdict(const CheckReport& report);

// A check that cannot even begin must not look like one that found something: an error is told, and
// becomes that exit status.
int could_not_look_if_failed(const Result<int>& status);

}  // namespace obd::tool
