# C unit tests: every tests/unit/test_<name>.c is a cmocka program of its own, linked with all rooms but cmd.
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
file(GLOB pm_unit_tests CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/unit/test_*.c)
foreach(source IN LISTS pm_unit_tests)
    get_filename_component(name ${source} NAME_WE)
    add_executable(${name} ${source})
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/unit)
    target_link_libraries(${name} PRIVATE
        pm_html pm_explain pm_view pm_reader pm_recorder pm_gpu pm_session pm_base PkgConfig::CMOCKA Threads::Threads ${CMAKE_DL_LIBS} m)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    # Tests that make allocations fail (tests/unit/torture.h) are linked with its wrappers.
    file(STRINGS ${source} torture REGEX "^#include \"torture.h\"")
    if(torture)
        foreach(function IN ITEMS malloc calloc realloc aligned_alloc posix_memalign strdup strndup
                opendir fdopendir fopen)
            target_link_options(${name} PRIVATE -Wl,--wrap=${function})
        endforeach()
    endif()
    # The recorder's fails system calls too.
    if(name STREQUAL "test_recorder_torture")
        foreach(call malloc calloc realloc mmap fallocate madvise pthread_create openat fcntl)
            target_link_options(${name} PRIVATE -Wl,--wrap=${call})
        endforeach()
    endif()
    if(name STREQUAL "test_kernel")
        foreach(call read write pwrite getrandom fallocate fstatfs fstatvfs)
            target_link_options(${name} PRIVATE -Wl,--wrap=${call})
        endforeach()
    endif()
    # What fuzzing the reader found worth keeping goes through the fuzz target once more.
    if(name STREQUAL "test_corpus")
        file(ARCHIVE_EXTRACT INPUT ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus_session.tar.xz
            DESTINATION ${CMAKE_BINARY_DIR}/tests/corpus)
        target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_session.c)
        target_compile_definitions(${name} PRIVATE PM_CORPUS="${CMAKE_BINARY_DIR}/tests/corpus/session")
    endif()
    if(name STREQUAL "test_corpus_trace")
        file(ARCHIVE_EXTRACT INPUT ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus_trace.tar.xz
            DESTINATION ${CMAKE_BINARY_DIR}/tests/corpus)
        target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_trace.c)
        target_compile_definitions(${name} PRIVATE PM_CORPUS="${CMAKE_BINARY_DIR}/tests/corpus/trace")
    endif()
    add_test(NAME ${name} COMMAND ${name})
endforeach()
include(${CMAKE_CURRENT_LIST_DIR}/tests-ext.cmake)

# Sessions for the tests of the program (tests/cli), made with the recorder and without Python.
add_executable(make_session ${CMAKE_SOURCE_DIR}/tests/cli/make_session.c)
target_link_libraries(make_session PRIVATE pm_recorder pm_session pm_base Threads::Threads)
set_target_properties(make_session PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

# A session that grows while `run` follows it (tests/cli/fake_server.py).
add_executable(live_session ${CMAKE_SOURCE_DIR}/tests/cli/live_session.c)
target_link_libraries(live_session PRIVATE pm_recorder pm_session pm_base Threads::Threads)
set_target_properties(live_session PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

# A made-up server's sessions, for tests/cli/test_top.py and test_postmortem.py.
set_target_properties(make_day PROPERTIES EXCLUDE_FROM_ALL OFF)

# What a step of a model computes and moves, for the comparison with vLLM's estimate (tests/e2e/test_compute_oracle.py).
add_executable(step_work ${CMAKE_SOURCE_DIR}/tests/cli/step_work.c)
target_link_libraries(step_work PRIVATE pm_view pm_reader pm_session pm_base m)
set_target_properties(step_work PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

# What the trace reader has of a file, for the comparison with Python's json (tests/cli/test_trace_json.py).
add_executable(dump_trace ${CMAKE_SOURCE_DIR}/tests/cli/dump_trace.c)
target_link_libraries(dump_trace PRIVATE pm_trace)
set_target_properties(dump_trace PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

# Fuzz targets, only when asked for, with clang: see tests/fuzz.
option(PM_FUZZ "Build the libFuzzer targets (clang)" OFF)
if(PM_FUZZ)
    add_executable(fuzz_session ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_session.c)
    target_include_directories(fuzz_session PRIVATE ${CMAKE_SOURCE_DIR}/tests/unit)
    target_link_libraries(fuzz_session PRIVATE pm_html pm_explain pm_view pm_reader pm_session pm_base Threads::Threads m)
    target_link_options(fuzz_session PRIVATE -fsanitize=fuzzer)
    target_compile_options(pm_reader PRIVATE -fsanitize=fuzzer-no-link)
    target_compile_options(pm_session PRIVATE -fsanitize=fuzzer-no-link)
    target_compile_options(pm_view PRIVATE -fsanitize=fuzzer-no-link)
    target_compile_options(pm_explain PRIVATE -fsanitize=fuzzer-no-link)
    add_executable(fuzz_trace ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_trace.c)
    target_include_directories(fuzz_trace PRIVATE ${CMAKE_SOURCE_DIR}/tests/unit)
    target_link_libraries(fuzz_trace PRIVATE pm_trace)
    target_link_options(fuzz_trace PRIVATE -fsanitize=fuzzer)
    target_compile_options(pm_trace PRIVATE -fsanitize=fuzzer-no-link)
    set_target_properties(fuzz_trace PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    set_target_properties(fuzz_session PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
endif()
