# The program: bin/profilemate.
file(GLOB pm_cmd_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/cmd/*.c)
if(EXISTS ${CMAKE_SOURCE_DIR}/src/cmd/main.c)
    # doctor's question to Python travels inside the program, as the bytes of a C array.
    set(pm_probe_script ${CMAKE_SOURCE_DIR}/src/cmd/doctor_probe.py)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${pm_probe_script})
    file(READ ${pm_probe_script} pm_probe_bytes HEX)
    string(REGEX REPLACE "(..)" "0x\\1," pm_probe_bytes "${pm_probe_bytes}")
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/cmd/doctor_probe.inc CONTENT "${pm_probe_bytes}0\n" @ONLY)

    # The gate is pure C and belongs to the extension; doctor asks it what it would decide.
    add_executable(profilemate ${pm_cmd_sources} ${CMAKE_SOURCE_DIR}/src/hook/gate.c)
    target_link_libraries(profilemate PRIVATE pm_html pm_explain pm_view pm_reader pm_recorder pm_session pm_base Threads::Threads m)
endif()

# Its manual pages and the completion of bash, also with the wheel (in the environment's share/).
set(pm_share share)
if(SKBUILD)
    set(pm_share ${SKBUILD_DATA_DIR}/share)
endif()
file(GLOB pm_man_1 CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/man/*.1)
file(GLOB pm_man_5 CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/man/*.5)
install(FILES ${pm_man_1} DESTINATION ${pm_share}/man/man1)
install(FILES ${pm_man_5} DESTINATION ${pm_share}/man/man5)
install(FILES ${CMAKE_SOURCE_DIR}/completion/profilemate.bash DESTINATION ${pm_share}/bash-completion/completions
    RENAME profilemate)

# The launch scripts of docs/PROFILING_GUIDE.md.
file(GLOB pm_launch CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/launch/*.sh)
install(PROGRAMS ${pm_launch} DESTINATION ${pm_share}/profilemate/launch)
