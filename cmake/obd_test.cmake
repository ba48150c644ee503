# How tests are defined. A test's label is the folder of test/ that it lives in (unit, property,
# crash, interop, e2e, guest, bench) unless it names another: `ctest -L unit` runs one kind.

include(GoogleTest)

obd_precompile_headers(test <gmock/gmock.h> <gtest/gtest.h> LIBRARIES GTest::gmock GTest::gtest)

# All that obd_add_test() makes: what the sanitizer presets build and run.
add_custom_target(engine_tests)

# obd_add_test(NAME SOURCES file... [LABEL label] [LIBRARIES target...] [TIMEOUT seconds])
#
# A GoogleTest program, linked with the engine and gmock; each of its cases becomes a ctest test
# named LABEL/Suite.Case. The macro OBD_SOURCE_DIR holds the top of the source tree.
function(obd_add_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "LABEL;TIMEOUT" "SOURCES;LIBRARIES")
  _obd_test_defaults()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(
    ${name} PRIVATE obd_core ${arg_LIBRARIES} GTest::gmock GTest::gtest GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE OBD_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/test)
  target_precompile_headers(${name} REUSE_FROM obd_test_headers)
  add_dependencies(engine_tests ${name})
  gtest_discover_tests(
    ${name}
    TEST_PREFIX ${arg_LABEL}/
    NO_PRETTY_VALUES
    DISCOVERY_MODE PRE_TEST
    DISCOVERY_TIMEOUT 60
    PROPERTIES LABELS ${arg_LABEL} TIMEOUT ${arg_TIMEOUT})
endfunction()

# obd_add_command_test(NAME COMMAND word... [LABEL label] [TIMEOUT seconds])
#
# A ctest test named LABEL/NAME that runs a command, from the current source folder, with
# OBD_SOURCE_DIR, OBD_BUILD_DIR, OBD_TOOL (the program obd) and OBD_PLUGIN (the nbdkit plugin) in
# its environment. It passes when the command exits 0.
function(obd_add_command_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "LABEL;TIMEOUT" "COMMAND")
  _obd_test_defaults()
  add_test(
    NAME ${arg_LABEL}/${name}
    COMMAND ${arg_COMMAND}
    WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
  set(environment
      OBD_SOURCE_DIR=${PROJECT_SOURCE_DIR} OBD_BUILD_DIR=${PROJECT_BINARY_DIR}
      OBD_TOOL=$<TARGET_FILE:obd> OBD_PLUGIN=$<TARGET_FILE:nbdkit-overlaybd-plugin>)
  set_tests_properties(
    ${arg_LABEL}/${name} PROPERTIES LABELS ${arg_LABEL} TIMEOUT ${arg_TIMEOUT}
                                 ENVIRONMENT "${environment}")
endfunction()

# obd_add_benchmark(NAME SOURCES file... [LIBRARIES target...])
#
# A Google Benchmark program. It is built with the tests but measures only when a person runs it.
function(obd_add_benchmark name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LIBRARIES")
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(
    ${name} PRIVATE obd_core ${arg_LIBRARIES} benchmark::benchmark benchmark::benchmark_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/test)
endfunction()

macro(_obd_test_defaults)
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "test ${name}: unknown arguments ${arg_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT arg_LABEL)
    get_filename_component(arg_LABEL ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
endmacro()
