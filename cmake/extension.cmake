# The extension: one abi3 module that is sitecustomize (PYTHONPATH) and _profilemate (the wheel). Links libc only.
file(GLOB pm_extension_sources CONFIGURE_DEPENDS
    ${CMAKE_SOURCE_DIR}/src/hook/*.c ${CMAKE_SOURCE_DIR}/src/probe/*.c ${CMAKE_SOURCE_DIR}/src/gpu/*.c
    ${CMAKE_SOURCE_DIR}/src/recorder/*.c ${CMAKE_SOURCE_DIR}/src/session/*.c ${CMAKE_SOURCE_DIR}/src/base/*.c)
if(EXISTS ${CMAKE_SOURCE_DIR}/src/hook/module.c)
    # What vLLM and torch are asked to do inside graphs travels inside the extension, as the bytes of a C array.
    set(pm_graph_script ${CMAKE_SOURCE_DIR}/src/probe/moe_graph.py)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${pm_graph_script})
    file(READ ${pm_graph_script} pm_graph_bytes HEX)
    string(REGEX REPLACE "(..)" "0x\\1," pm_graph_bytes "${pm_graph_bytes}")
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/probe/moe_graph.inc CONTENT "${pm_graph_bytes}0\n" @ONLY)
    add_library(pm_extension MODULE ${pm_extension_sources})
    target_compile_definitions(pm_extension PRIVATE Py_LIMITED_API=0x030A0000)
    target_include_directories(pm_extension SYSTEM PRIVATE ${Python3_INCLUDE_DIRS})
    # Functions of the interpreter are called by their addresses, all known from the start (-z now): no line of a table of jumps is
    # fetched for each (bench/footprint.py).
    target_compile_options(pm_extension PRIVATE -fno-plt)
    target_link_libraries(pm_extension PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
    set_target_properties(pm_extension PROPERTIES
        PREFIX "" OUTPUT_NAME "sitecustomize" SUFFIX ".abi3.so"
        LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/site)
    # The folder site/simple/ selects the preset `simple`: the extension looks at the folder that it was loaded from.
    add_custom_command(TARGET pm_extension POST_BUILD
        COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/site/simple
        COMMAND ${CMAKE_COMMAND} -E copy $<TARGET_FILE:pm_extension> ${CMAKE_BINARY_DIR}/site/simple/)
endif()
