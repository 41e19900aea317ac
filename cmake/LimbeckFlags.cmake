# Two interface targets, linked by every target of the project:
#   limbeck_usage  what limbeck's headers need; projects that use limbeck inherit it
#   limbeck_flags  how limbeck's own code is compiled; nobody inherits it
add_library(limbeck_usage INTERFACE)
set_target_properties(limbeck_usage PROPERTIES EXPORT_NAME usage)
target_compile_features(limbeck_usage INTERFACE cxx_std_20)
target_include_directories(limbeck_usage INTERFACE
  "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>"          # #include "ops/conv2d.h"
  "$<INSTALL_INTERFACE:include/limbeck>")             # the same line, from an installed limbeck
target_link_libraries(limbeck_usage INTERFACE
  OpenMP::OpenMP_CXX Threads::Threads DNNL::dnnl fmt::fmt PkgConfig::spng PkgConfig::libzip
  $<IF:$<TARGET_EXISTS:yaml-cpp::yaml-cpp>,yaml-cpp::yaml-cpp,yaml-cpp>   # 0.8 and later, before
  # The static run-time library, so that the program starts on a machine without CUDA.
  $<$<BOOL:${LIMBECK_WITH_CUDA}>:CUDA::cudart_static> ${CMAKE_DL_LIBS})

add_library(limbeck_flags INTERFACE)
target_compile_options(limbeck_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wconversion>
  # nvcc hands its host compiler what stands behind -Xcompiler. CMake 3.25 does not know nvcc's option for C++20.
  $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20 --expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra,-fopenmp>
  # nvcc does not get through fmt's compile-time check of format strings; g++ has checked the same headers.
  $<$<COMPILE_LANGUAGE:CUDA>:-DFMT_USE_CONSTEVAL=0 -DFMT_CONSTEVAL= -DFMT_USE_CONSTEXPR=1>
  # g++ 12 sees overlapping copies inside std::string's operator+ (gcc.gnu.org/PR105651).
  $<$<AND:$<COMPILE_LANG_AND_ID:CXX,GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>
  # Both let the compiler vectorise loops with std::sqrt, std::floor and comparisons. Results do not change:
  # neither permits reordering sums or assuming that NaN does not exist, as -ffast-math would.
  $<$<COMPILE_LANGUAGE:CXX>:-fno-math-errno -fno-trapping-math>)
if(LIMBECK_WERROR)
  target_compile_options(limbeck_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror> $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Werror>)
endif()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  target_compile_options(limbeck_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:$<IF:$<BOOL:${LIMBECK_NATIVE}>,-march=native,-march=x86-64-v3>>)
elseif(LIMBECK_NATIVE)
  target_compile_options(limbeck_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-mcpu=native>)
endif()

if(LIMBECK_SANITIZE)
  target_compile_options(limbeck_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${LIMBECK_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer>)
  target_link_options(limbeck_flags INTERFACE -fsanitize=${LIMBECK_SANITIZE})
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_SCAN_FOR_MODULES OFF)    # there are no C++ modules here; scanning for them doubles the work of newer CMake
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)  # for clang-tidy and editors
set(CMAKE_POSITION_INDEPENDENT_CODE ${BUILD_SHARED_LIBS})   # a static library needs none and is faster without
