// One layer as the commands print it under --json.

#pragma once

#include "core/image/image.h"
#include "tools/obd/common.h"

namespace obd::tool {

Json layer_json(const LayerInfo& layer);

}  // namespace obd::tool
