# The trace room: reads torch traces. zlib is required; ISA-L (Debian: libisal-dev), where it is installed, inflates
# three to four times faster.
pm_room(trace)
# The built-in classes of kernels travel inside the program, as the bytes of a C array.
set(pm_rules ${CMAKE_SOURCE_DIR}/src/trace/classes.rules)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${pm_rules})
file(READ ${pm_rules} pm_rules_bytes HEX)
string(REGEX REPLACE "(..)" "0x\\1," pm_rules_bytes "${pm_rules_bytes}")
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/trace/classes.inc CONTENT "${pm_rules_bytes}0\n" @ONLY)
find_package(ZLIB REQUIRED)
target_link_libraries(pm_trace PUBLIC ZLIB::ZLIB m)
option(PM_ISAL "Inflate gzip traces with ISA-L where it is installed" ON)
# Not in a wheel: it has to run where that library is not (tests/e2e/test_wheel.py asks auditwheel).
if(PM_ISAL AND NOT SKBUILD)
    pkg_check_modules(ISAL QUIET IMPORTED_TARGET libisal)
    if(ISAL_FOUND)
        target_link_libraries(pm_trace PUBLIC PkgConfig::ISAL)
        target_compile_definitions(pm_trace PRIVATE PM_HAVE_ISAL)
    endif()
endif()
target_link_libraries(pm_trace PUBLIC pm_base)
# Sums of the times in a damaged file may overflow: then they wrap, and nothing else happens.
target_compile_options(pm_trace PRIVATE -fwrapv)

# What links the views (the program, the unit tests) gets the trace room with them.
get_target_property(pm_view_type pm_view TYPE)
if(pm_view_type STREQUAL "INTERFACE_LIBRARY")
    target_link_libraries(pm_view INTERFACE pm_trace)
else()
    target_link_libraries(pm_view PUBLIC pm_trace)
endif()
