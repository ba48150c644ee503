#include "tools/obd/command.h"
namespace obd::tool {
void add_export_oci(CLI::App&, Runner&) {}
}  // namespace obd::tool
