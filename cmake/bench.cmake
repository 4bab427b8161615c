# Benches in C, built only when asked for: cmake --build … --target bench_record gives bench/bench_record.
foreach(name IN ITEMS bench_record bench_export)
    add_executable(${name} EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/bench/${name}.c)
    target_link_libraries(${name} PRIVATE pm_view pm_reader pm_recorder pm_session pm_base Threads::Threads m)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
endforeach()
add_executable(bench_trace EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/bench/bench_trace.c)
target_link_libraries(bench_trace PRIVATE pm_trace)
set_target_properties(bench_trace PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
