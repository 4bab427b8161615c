# The program: bin/profilemate.
file(GLOB pm_cmd_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/cmd/*.c)
if(EXISTS ${CMAKE_SOURCE_DIR}/src/cmd/main.c)
    add_executable(profilemate ${pm_cmd_sources})
    target_link_libraries(profilemate PRIVATE pm_view pm_reader pm_recorder pm_session pm_base Threads::Threads m)
endif()
