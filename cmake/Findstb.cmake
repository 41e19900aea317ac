# Finds the stb single-file headers and defines stb::stb. They are included as <stb_image.h>.
find_path(stb_INCLUDE_DIR stb_image.h PATH_SUFFIXES stb)
mark_as_advanced(stb_INCLUDE_DIR)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(stb
  REQUIRED_VARS stb_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "install libstb-dev, or run scripts/setup.sh")

if(stb_FOUND AND NOT TARGET stb::stb)
  add_library(stb::stb INTERFACE IMPORTED)
  set_target_properties(stb::stb PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${stb_INCLUDE_DIR}")
endif()
