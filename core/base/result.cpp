#include "core/base/result.h"

#include <system_error>

namespace obd {

std::unexpected<Error> fail_errno_text(int code, std::string what) {
  what += ": ";
  what += std::generic_category().message(code);
  return std::unexpected<Error>(Error{code, std::move(what)});
}

}  // namespace obd
