# The Python package's extension profilemate._reader (src/binding): the reader and the views, one abi3 file. In the
# build folder python/profilemate is the whole package, for PYTHONPATH.
file(GLOB pm_binding_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/binding/*.c)
add_library(pm_binding MODULE ${pm_binding_sources} ${CMAKE_SOURCE_DIR}/src/cmd/place.c)
target_compile_definitions(pm_binding PRIVATE Py_LIMITED_API=0x030A0000)
target_include_directories(pm_binding SYSTEM PRIVATE ${Python3_INCLUDE_DIRS})
target_link_libraries(pm_binding PRIVATE pm_view pm_reader pm_session pm_base Threads::Threads m)
set_target_properties(pm_binding PROPERTIES
    PREFIX "" OUTPUT_NAME "_reader" SUFFIX ".abi3.so"
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/python/profilemate)
# Not in the package's own folder: what pip takes from there is Python only.
file(GLOB pm_package_files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/python/profilemate/*.py
    ${CMAKE_SOURCE_DIR}/python/profilemate/*.pyi ${CMAKE_SOURCE_DIR}/python/profilemate/py.typed)
file(GLOB pm_fleet_files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/python/profilemate/fleet/*.py
    ${CMAKE_SOURCE_DIR}/python/profilemate/fleet/*.sql)
add_custom_target(pm_package ALL
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/python/profilemate/fleet
    COMMAND ${CMAKE_COMMAND} -E copy_if_different ${pm_package_files} ${CMAKE_BINARY_DIR}/python/profilemate/
    COMMAND ${CMAKE_COMMAND} -E copy_if_different ${pm_fleet_files} ${CMAKE_BINARY_DIR}/python/profilemate/fleet/
    DEPENDS ${pm_package_files} ${pm_fleet_files})
add_dependencies(pm_package pm_binding)
