# limbeck_layer(NAME HEADERS file... SOURCES file... [CUDA file...] [LIBRARIES target...])
#
# Declares the layer in the current folder: an object library limbeck_NAME (build one layer with
# `cmake --build build --target limbeck_ops`) whose objects and headers become part of the library `limbeck`.
#   CUDA       sources and headers that exist only in a build with CUDA: limbeck_NAME_cuda;
#              the target limbeck_cuda builds those of all layers
#   LIBRARIES  what the sources need but the headers do not show
function(limbeck_layer name)
  cmake_parse_arguments(PARSE_ARGV 1 layer "" "" "HEADERS;SOURCES;CUDA;LIBRARIES")
  limbeck_layer_part(limbeck_${name} "${layer_HEADERS}" "${layer_SOURCES}" "${layer_LIBRARIES}")

  if(LIMBECK_WITH_CUDA AND layer_CUDA)
    set(headers ${layer_CUDA})
    set(sources ${layer_CUDA})
    list(FILTER headers INCLUDE REGEX "\\.(h|cuh)$")
    list(FILTER sources EXCLUDE REGEX "\\.(h|cuh)$")
    limbeck_layer_part(limbeck_${name}_cuda "${headers}" "${sources}" "${layer_LIBRARIES}")
    add_dependencies(limbeck_cuda limbeck_${name}_cuda)
  endif()
endfunction()

# One object library of a layer. Object files and headers are handed to `limbeck` here rather than by linking to the
# object library, because an installed static library may not depend on targets that are not installed.
function(limbeck_layer_part target headers sources libraries)
  target_sources(limbeck PUBLIC FILE_SET HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}" FILES ${headers})
  add_library(${target} OBJECT ${sources})
  target_link_libraries(${target} PRIVATE limbeck_flags limbeck_usage ${libraries})
  target_sources(limbeck PRIVATE $<TARGET_OBJECTS:${target}>)
endfunction()
