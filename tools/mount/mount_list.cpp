#include "tools/mount/mount_list.h"

#include <nlohmann/json.hpp>

namespace obd::mount {

std::string mount_list(const std::string& type, const std::string& source,
                       const std::vector<std::string>& options) {
  using Json = nlohmann::ordered_json;
  const Json list = Json::array({{{"type", type}, {"source", source}, {"options", options}}});
  return list.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace obd::mount
