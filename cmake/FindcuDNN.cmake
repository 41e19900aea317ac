# Finds cuDNN next to the CUDA toolkit, in the system's directories or in cuDNN_ROOT; defines cuDNN::cudnn, cuDNN_VERSION.
get_filename_component(_cuda_bin "${CMAKE_CUDA_COMPILER}" DIRECTORY)
find_path(cuDNN_INCLUDE_DIR cudnn_version.h
  HINTS "${_cuda_bin}/../include" PATHS /usr/local/cuda/include PATH_SUFFIXES x86_64-linux-gnu)
find_library(cuDNN_LIBRARY cudnn
  HINTS "${_cuda_bin}/../lib64" "${_cuda_bin}/../lib" PATHS /usr/local/cuda/lib64 PATH_SUFFIXES x86_64-linux-gnu)
mark_as_advanced(cuDNN_INCLUDE_DIR cuDNN_LIBRARY)
unset(_cuda_bin)

if(cuDNN_INCLUDE_DIR)
  file(STRINGS "${cuDNN_INCLUDE_DIR}/cudnn_version.h" _cudnn_lines REGEX "define CUDNN_(MAJOR|MINOR|PATCHLEVEL) +[0-9]+")
  string(REGEX REPLACE ".*MAJOR +([0-9]+).*MINOR +([0-9]+).*PATCHLEVEL +([0-9]+).*" "\\1.\\2.\\3" cuDNN_VERSION "${_cudnn_lines}")
  unset(_cudnn_lines)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(cuDNN REQUIRED_VARS cuDNN_LIBRARY cuDNN_INCLUDE_DIR VERSION_VAR cuDNN_VERSION)

if(cuDNN_FOUND AND NOT TARGET cuDNN::cudnn)
  add_library(cuDNN::cudnn UNKNOWN IMPORTED)
  set_target_properties(cuDNN::cudnn PROPERTIES
    IMPORTED_LOCATION "${cuDNN_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${cuDNN_INCLUDE_DIR}")
endif()
