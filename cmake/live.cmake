# The live room: running sessions, for `top` and `postmortem`; and ncurses for top's screen.
pm_room(live)
target_link_libraries(pm_live PUBLIC pm_view pm_reader pm_session pm_base)
target_link_libraries(profilemate PRIVATE pm_live)

# ncursesw is linked statically where its archive is installed (Debian: libncurses-dev has it), so that the program
# starts on machines without the library, as a wheel must; else shared; and where there is none, `top` prints instead.
option(PM_CURSES "Build the screen of `profilemate top` (needs ncursesw)" ON)
if(PM_CURSES)
    find_path(PM_CURSES_INCLUDE ncursesw/ncurses.h)
    find_library(PM_CURSES_LIBRARY NAMES libncursesw.a ncursesw)
    find_library(PM_TINFO_LIBRARY NAMES libtinfo.a libtinfow.a tinfo tinfow)
    if(PM_CURSES_INCLUDE AND PM_CURSES_LIBRARY)
        set(pm_curses ${PM_CURSES_LIBRARY})
        if(PM_TINFO_LIBRARY)
            list(APPEND pm_curses ${PM_TINFO_LIBRARY})
        endif()
        target_include_directories(profilemate SYSTEM PRIVATE ${PM_CURSES_INCLUDE})
        target_link_libraries(profilemate PRIVATE ${pm_curses})
        target_compile_definitions(profilemate PRIVATE PM_HAVE_CURSES)
    else()
        message(STATUS "ncursesw was not found: `profilemate top` prints its screen instead of drawing it")
    endif()
endif()
