// SOURCE_DATE_EPOCH (reproducible-builds.org): with it, the same input gives the same bytes.
//
// Thread-safety: none.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/base/result.h"
#include "core/base/uuid.h"

namespace obd::oci {

// The variable's value, in seconds; nullopt when it is not set.
// Errors: EINVAL for what is no such number.
Result<std::optional<int64_t>> source_date_epoch();

// A UUID that the text decides: the first digits of its digest.
Uuid uuid_from_text(const std::string& text);

}  // namespace obd::oci
