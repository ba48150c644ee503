# Precompiled headers: most of what compiling a file takes is the same few headers, so they are
# parsed once for all targets. They add nothing that a file may leave out: configure with
# -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON, as the preset `asan` does, and each file stands alone.
#
# obd_precompile_headers(NAME header... [LIBRARIES target...]) makes a set of them;
# target_precompile_headers(TARGET REUSE_FROM obd_NAME_headers) uses it.

# A header precompiled for libraries is of no use to a program unless both have the same flags.
set(CMAKE_CXX_COMPILE_OPTIONS_PIE -fPIC)

set(
  obd_common_headers
  <fmt/format.h>
  <algorithm>
  <array>
  <atomic>
  <chrono>
  <condition_variable>
  <cstring>
  <expected>
  <filesystem>
  <functional>
  <map>
  <memory>
  <mutex>
  <optional>
  <span>
  <string>
  <string_view>
  <thread>
  <unordered_map>
  <utility>
  <vector>)

function(obd_precompile_headers name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "LIBRARIES")
  set(source ${CMAKE_CURRENT_BINARY_DIR}/${name}_headers.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT "")
  add_library(obd_${name}_headers OBJECT ${source})
  target_link_libraries(obd_${name}_headers PRIVATE fmt::fmt Threads::Threads ${arg_LIBRARIES})
  # Else clang refuses what ccache kept from another build, whose files had other times.
  target_compile_options(
    obd_${name}_headers PRIVATE "$<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>")
  target_precompile_headers(
    obd_${name}_headers PRIVATE ${obd_common_headers} ${arg_UNPARSED_ARGUMENTS})
endfunction()
