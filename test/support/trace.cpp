#include "test/support/trace.h"

#include <fmt/format.h>

namespace obd::test {

std::string describe(const TraceEntry& entry) {
  switch (entry.kind) {
    case TraceKind::write:
      return fmt::format("write {} +{} {} bytes", entry.path, entry.offset, entry.data.size());
    case TraceKind::truncate:
      return fmt::format("truncate {} to {}", entry.path, entry.length);
    case TraceKind::punch:
      return fmt::format("punch {} +{} {} bytes", entry.path, entry.offset, entry.length);
    case TraceKind::sync_begin:
      return fmt::format("sync {} begins", entry.path);
    case TraceKind::sync_end:
      return fmt::format("sync {} ends (began at {})", entry.path, entry.begun);
    case TraceKind::sync_failed:
      return fmt::format("sync {} fails (began at {})", entry.path, entry.begun);
    case TraceKind::create:
      return fmt::format("create {}", entry.path);
    case TraceKind::rename:
      return fmt::format("rename {} to {}", entry.path, entry.target);
    case TraceKind::remove:
      return fmt::format("remove {}", entry.path);
    case TraceKind::sync_directory:
      return fmt::format("sync folder {}", entry.path);
    case TraceKind::mark:
      return fmt::format("-- {}", entry.path);
  }
  return "?";
}

}  // namespace obd::test
