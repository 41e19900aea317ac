# Settles LIMBECK_CUDA to LIMBECK_WITH_CUDA (ON or OFF) and turns the CUDA language on.
# A build without CUDA leaves out files (the CUDA lists of the layers), never lines inside files.
set(LIMBECK_WITH_CUDA OFF)
if(NOT LIMBECK_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "LIMBECK_CUDA is '${LIMBECK_CUDA}', expected AUTO, ON or OFF")
endif()
if(NOT LIMBECK_CUDA STREQUAL "OFF" )
  include(CheckLanguage)
  check_language(CUDA)
  find_package(cuDNN 9 QUIET)          # cmake/FindcuDNN.cmake
  if(CMAKE_CUDA_COMPILER AND cuDNN_FOUND)
    set(LIMBECK_WITH_CUDA ON)
  elseif(LIMBECK_CUDA STREQUAL "ON")
    message(FATAL_ERROR "LIMBECK_CUDA=ON, but nvcc (${CMAKE_CUDA_COMPILER}) or cuDNN 9 (${cuDNN_LIBRARY}) was not found; "
                        "set CUDACXX and cuDNN_ROOT, or use LIMBECK_CUDA=OFF")
  endif()
endif()

add_custom_target(limbeck_cuda)          # all GPU code and nothing else; limbeck_layer() fills it

if(LIMBECK_WITH_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    # Machine code for data-centre Hopper; every other card from Turing on compiles the portable form at its first start.
    # Give -DCMAKE_CUDA_ARCHITECTURES=native for the card at hand.
    set(CMAKE_CUDA_ARCHITECTURES 75-virtual 90-real)
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  # Where programs of the build tree look for the libraries that they load when needed.
  get_filename_component(_cudnn_folder "${cuDNN_LIBRARY}" DIRECTORY)
  list(APPEND CMAKE_BUILD_RPATH "${_cudnn_folder}" "${CUDAToolkit_LIBRARY_DIR}")
  unset(_cudnn_folder)
  message(STATUS "limbeck: GPU kernels with CUDA ${CMAKE_CUDA_COMPILER_VERSION}, cuDNN ${cuDNN_VERSION}")
else()
  message(STATUS "limbeck: no GPU kernels (LIMBECK_CUDA=${LIMBECK_CUDA})")
endif()
