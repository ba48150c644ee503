# How every target of the project is compiled: standard, warnings, sanitizers.

set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Debug, Release or RelWithDebInfo" FORCE)
endif()

add_compile_options(-Wall -Wextra -Wshadow -Wconversion)
# Backtraces and profiles want lines; what only a debugger wants takes a fifth of the build's time.
add_compile_options($<$<CONFIG:RelWithDebInfo>:-g1>)

if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # core/base/thread_annotations.h; beta: the order of locks.
  add_compile_options(-Wthread-safety -Wthread-safety-beta)
endif()
if(OBD_WERROR)
  add_compile_options(-Werror)
endif()

# Checked containers and iterators where speed is not the point.
add_compile_definitions($<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS>)

set(sanitizers ${OBD_SANITIZE})
if(OBD_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "OBD_FUZZ needs clang: use the preset `fuzz`")
  endif()
  string(JOIN "," sanitizers fuzzer-no-link ${sanitizers})
endif()
if(sanitizers)
  add_compile_options(
    -g1 -fsanitize=${sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${sanitizers})
endif()
