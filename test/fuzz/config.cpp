// A config that is accepted names absolute or config-relative files only; everything else is
// refused, naming the config.

#include "core/image/config.h"
#include "test/fuzz/bounds.h"
#include "test/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace obd;
  const fuzz::Bounds limits(size);
  test::MemoryFileSystem fs;
  fuzz::put_file(fs, "/image/config.v1.json", fuzz::as_bytes(data, size));
  fuzz::put_file(fs, "/image/layer", {});
  const auto config = load_config(fs, "/image/config.v1.json");
  (void)find_result_file(fs, "/image/config.v1.json");
  if (!config) {
    fuzz::require_sentence(config.error(), "/image/config.v1.json");
    return 0;
  }
  for (const std::string& lower : config->lowers) {
    fuzz::require(lower.starts_with('/'), "a path is resolved");
    fuzz::require(lower.find('\0') == std::string::npos, "a path has no NUL");
  }
  if (!config->upper) return 0;
  auto lock = ConfigLock::take(fs, *config);
  fuzz::require(lock.has_value(), "an accepted config can be locked");
  if (const auto sealed = lock->turn_upper_into_lower(); !sealed) {
    fuzz::require(false, "an accepted config can be rewritten: " + sealed.error().message);
  }
  const auto again = load_config(fs, config->path);
  fuzz::require(!again || !again->upper, "the upper is gone");
  return 0;
}
