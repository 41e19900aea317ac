# limbeck_layer(NAME HEADERS file... SOURCES file... [CUDA file...] [NO_CUDA file...] [LIBRARIES target...])
#
# Declares the layer in the current folder: an object library limbeck_NAME (build one layer with
# `cmake --build build --target limbeck_ops`) whose objects and headers become part of the library `limbeck`.
#   CUDA       sources that exist only in a build with CUDA, and their headers, which are not installed: limbeck_NAME_cuda;
#              the target limbeck_cuda builds those of all layers, the tests compile the kernels among them as C++
#   NO_CUDA    what stands in for them in a build without
#   LIBRARIES  what the sources need but the headers do not show
function(limbeck_layer name)
  cmake_parse_arguments(PARSE_ARGV 1 layer "" "" "HEADERS;SOURCES;CUDA;NO_CUDA;LIBRARIES")
  limbeck_layer_part(limbeck_${name} "${layer_HEADERS}" "${layer_SOURCES}" "${layer_LIBRARIES}")

  set(sources ${layer_CUDA})
  list(FILTER sources EXCLUDE REGEX "\\.(h|cuh)$")
  list(TRANSFORM sources PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/" OUTPUT_VARIABLE paths)
  set_property(GLOBAL APPEND PROPERTY LIMBECK_CUDA_SOURCES ${paths})
  if(LIMBECK_WITH_CUDA AND layer_CUDA)
    limbeck_layer_part(limbeck_${name}_cuda "" "${sources}" "${layer_LIBRARIES}")
    # Headers only: the libraries are loaded when they are needed (core/cuda/library.h).
    target_include_directories(limbeck_${name}_cuda SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS} "${cuDNN_INCLUDE_DIR}")
    add_dependencies(limbeck_cuda limbeck_${name}_cuda)
  elseif(layer_NO_CUDA)
    limbeck_layer_part(limbeck_${name}_no_cuda "" "${layer_NO_CUDA}" "${layer_LIBRARIES}")
  endif()
endfunction()

# One object library of a layer. Object files and headers are handed to `limbeck` here rather than by linking to the
# object library, because an installed static library may not depend on targets that are not installed.
function(limbeck_layer_part target headers sources libraries)
  target_sources(limbeck PUBLIC FILE_SET HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}" FILES ${headers})
  add_library(${target} OBJECT ${sources})
  # A reference computes what its formula says. Were a product and a sum joined into one rounding in one place and not in
  # another, as newer compilers do, equal student and teacher would no longer give a loss of exactly zero.
  set(references ${sources})
  list(FILTER references INCLUDE REGEX "_ref\\.cpp$")
  if(references)
    set_source_files_properties(${references} PROPERTIES COMPILE_OPTIONS -ffp-contract=off)
  endif()
  target_link_libraries(${target} PRIVATE limbeck_flags limbeck_usage ${libraries})
  target_sources(limbeck PRIVATE $<TARGET_OBJECTS:${target}>)
endfunction()
