# What `cmake --install` and the wheel contain.
#
# The wheel (scikit-build-core sets SKBUILD and the folders of its parts):
#   _profilemate.abi3.so                      the extension, under the name that the next two import
#   profilemate.pth, profilemate.start        load it in every Python process of the environment; .start (PEP 829) is
#                                             read by CPythons that no longer run import lines of .pth files
#   profilemate/                              the Python package (python/profilemate, copied by scikit-build-core)
#   profilemate/_reader.abi3.so               its C part
#   profilemate/site/, profilemate/site/simple/   the extension as sitecustomize, for PYTHONPATH
#   bin/profilemate                           the program
#
# A plain install: bin/profilemate and lib/profilemate/site/.
if(SKBUILD)
    install(PROGRAMS $<TARGET_FILE:profilemate> DESTINATION ${SKBUILD_SCRIPTS_DIR})
    install(FILES $<TARGET_FILE:pm_extension> DESTINATION ${SKBUILD_PLATLIB_DIR} RENAME _profilemate.abi3.so)
    install(FILES $<TARGET_FILE:pm_binding> DESTINATION ${SKBUILD_PLATLIB_DIR}/profilemate)
    install(FILES python/profilemate.pth python/profilemate.start DESTINATION ${SKBUILD_PLATLIB_DIR})
    set(pm_site_destination ${SKBUILD_PLATLIB_DIR}/profilemate/site)
else()
    include(GNUInstallDirs)
    install(TARGETS profilemate RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
    set(pm_site_destination lib/profilemate/site)
endif()
install(FILES $<TARGET_FILE:pm_extension> DESTINATION ${pm_site_destination})
install(FILES $<TARGET_FILE:pm_extension> DESTINATION ${pm_site_destination}/simple)
