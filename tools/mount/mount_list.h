// What --json prints for a caller like containerd: its list of mounts, which it hands to mount(2).

#pragma once

#include <string>
#include <vector>

namespace obd::mount {

// One line of JSON: [{"type":...,"source":...,"options":[...]}]
std::string mount_list(const std::string& type, const std::string& source,
                       const std::vector<std::string>& options);

}  // namespace obd::mount
