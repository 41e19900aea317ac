# Finds what limbeck is built on. scripts/setup.sh installs all of it on Debian and Ubuntu.
# cmake/limbeck-config.cmake.in repeats the public part for projects that use an installed limbeck.
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(PkgConfig REQUIRED)

find_package(oneDNN 2.6 REQUIRED)      # cmake/FindoneDNN.cmake
find_package(fmt REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(stb REQUIRED)             # cmake/Findstb.cmake
pkg_check_modules(spng REQUIRED IMPORTED_TARGET spng)
pkg_check_modules(libzip REQUIRED IMPORTED_TARGET libzip)

# Never a reason to fail: a compiler cache makes the second build a matter of seconds.
find_program(CCACHE_PROGRAM ccache)
mark_as_advanced(CCACHE_PROGRAM)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
  set(CMAKE_CUDA_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()
