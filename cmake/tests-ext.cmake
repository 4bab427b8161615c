# Modules for the tests of the wrapper (tests/ext/test_wrapper.py) and its bench: tests/_pmtest.abi3.so and
# tests/_pmbench.abi3.so under the build folder. Both run on every CPython that the extension runs on.
set(pm_wrapper_sources)
foreach(name wrapper stand_in bound awaitable guard read)
    list(APPEND pm_wrapper_sources ${CMAKE_SOURCE_DIR}/src/hook/${name}.c)
endforeach()
function(pm_python_test_module name source)
    if(NOT EXISTS ${source})
        return()
    endif()
    add_library(${name} MODULE ${source} ${pm_wrapper_sources})
    target_compile_definitions(${name} PRIVATE Py_LIMITED_API=0x030A0000)
    target_include_directories(${name} SYSTEM PRIVATE ${Python3_INCLUDE_DIRS})
    target_link_libraries(${name} PRIVATE ${ARGN} pm_base Threads::Threads ${CMAKE_DL_LIBS})
    set_target_properties(${name} PROPERTIES
        PREFIX "" SUFFIX ".abi3.so" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
endfunction()
pm_python_test_module(_pmtest ${CMAKE_SOURCE_DIR}/tests/ext/pmtest.c)
pm_python_test_module(_pmbench ${CMAKE_SOURCE_DIR}/bench/bench_wrapper.c pm_recorder pm_session)

# A tool that takes NVTX ranges (tests/ext/test_scopes.py, tests/e2e/test_torch_profile.py): tests/nvtx_tool.so.
add_library(nvtx_tool MODULE ${CMAKE_SOURCE_DIR}/tests/ext/nvtx_tool.c)
set_target_properties(nvtx_tool PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
