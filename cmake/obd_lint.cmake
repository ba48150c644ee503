# Targets `format` (rewrites), `format-check` and `tidy` over the project's own sources.

find_program(OBD_CLANG_FORMAT clang-format-19)
find_program(OBD_RUN_CLANG_TIDY run-clang-tidy-19)

file(
  GLOB_RECURSE lint_sources CONFIGURE_DEPENDS
  ${PROJECT_SOURCE_DIR}/core/*.h ${PROJECT_SOURCE_DIR}/core/*.cpp
  ${PROJECT_SOURCE_DIR}/nbdkit-plugin/*.h ${PROJECT_SOURCE_DIR}/nbdkit-plugin/*.cpp
  ${PROJECT_SOURCE_DIR}/tools/*.h ${PROJECT_SOURCE_DIR}/tools/*.cpp
  ${PROJECT_SOURCE_DIR}/test/*.h ${PROJECT_SOURCE_DIR}/test/*.cpp)

if(OBD_CLANG_FORMAT)
  add_custom_target(format COMMAND ${OBD_CLANG_FORMAT} -i ${lint_sources} VERBATIM)
  add_custom_target(
    format-check COMMAND ${OBD_CLANG_FORMAT} --dry-run --Werror ${lint_sources} VERBATIM)
endif()
if(OBD_RUN_CLANG_TIDY)
  add_custom_target(
    tidy
    COMMAND ${OBD_RUN_CLANG_TIDY} -quiet -p ${PROJECT_BINARY_DIR}
            "^${PROJECT_SOURCE_DIR}/(core|nbdkit-plugin|tools)/"
    VERBATIM)
endif()
