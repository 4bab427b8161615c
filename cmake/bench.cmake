# Benches in C, built only when asked for: cmake --build … --target bench_record gives bench/bench_record.
foreach(name IN ITEMS bench_record bench_export)
    add_executable(${name} EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/bench/${name}.c)
    target_link_libraries(${name} PRIVATE pm_explain pm_view pm_reader pm_recorder pm_session pm_base Threads::Threads m)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
endforeach()
# Sessions of a made-up server, of any length: bench/make_day.
add_executable(make_day EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/bench/make_day.c ${CMAKE_SOURCE_DIR}/bench/made_server.c
    ${CMAKE_SOURCE_DIR}/bench/made_moe.c)
target_link_libraries(make_day PRIVATE pm_recorder pm_session pm_base Threads::Threads m)
set_target_properties(make_day PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
add_executable(bench_trace EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/bench/bench_trace.c)
target_link_libraries(bench_trace PRIVATE pm_trace)
set_target_properties(bench_trace PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
# Device events without a device: bench/bench_events, with the stand-in driver of tests/gpu.
add_executable(bench_events EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/bench/bench_events.c)
target_link_libraries(bench_events PRIVATE pm_gpu pm_base Threads::Threads ${CMAKE_DL_LIBS})
set_target_properties(bench_events PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
