# `cmake --install build --prefix P`: afterwards another project says
#   find_package(limbeck REQUIRED)
#   target_link_libraries(mine PRIVATE limbeck::limbeck)
# tests/install_consumer is such a project.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/limbeck")

install(TARGETS limbeck limbeck_usage EXPORT limbeck-targets
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/limbeck"
  FILE_SET c_header DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/limbeck")
if(TARGET limbeck_app)
  install(TARGETS limbeck_app RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()
install(EXPORT limbeck-targets NAMESPACE limbeck:: DESTINATION "${package_dir}")

configure_package_config_file(cmake/limbeck-config.cmake.in limbeck-config.cmake INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file(limbeck-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES
  "${PROJECT_BINARY_DIR}/limbeck-config.cmake"
  "${PROJECT_BINARY_DIR}/limbeck-config-version.cmake"
  cmake/FindoneDNN.cmake
  DESTINATION "${package_dir}")
