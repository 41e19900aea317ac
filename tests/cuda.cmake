# The tests of the GPU code exist twice:
#   limbeck_cuda_tests            in a build with CUDA; skips with a reason on a machine without GPU
#   limbeck_cuda_emulated_tests   in every build: the kernels and core/cuda compiled as C++ against cuda_emulation/,
#                                 which runs them on the CPU; cuDNN and cuBLASLt are replaced by plain loops
set(cuda_test_sources main.cpp ${PROJECT_SOURCE_DIR}/apps/step_recorder.cpp)
set(cuda_units cuda_core cuda_conv cuda_training cuda_metrics cuda_recorder rounded_copy step_graph)
foreach(unit IN LISTS cuda_units ITEMS cuda_cases)
  list(APPEND cuda_test_sources cuda/test_${unit}.cpp)
endforeach()

if(LIMBECK_WITH_CUDA)
  add_executable(limbeck_cuda_tests ${cuda_test_sources} $<TARGET_OBJECTS:limbeck_cases>)
  target_link_libraries(limbeck_cuda_tests PRIVATE limbeck limbeck_flags doctest::doctest)
  add_test(NAME cuda COMMAND limbeck_cuda_tests)

  # What cuDNN plans for cards that are not here. The stand-in is put before this program only.
  add_library(limbeck_driver_stand_in SHARED cuda/driver_stand_in.cpp)
  target_link_libraries(limbeck_driver_stand_in PRIVATE limbeck_flags)
  set_target_properties(limbeck_driver_stand_in PROPERTIES
    OUTPUT_NAME cuda SOVERSION 1 LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/driver_stand_in)
  add_executable(limbeck_plan_tests main.cpp cuda/test_convolution_plans.cpp $<TARGET_OBJECTS:limbeck_cases>)
  target_link_libraries(limbeck_plan_tests PRIVATE limbeck limbeck_flags doctest::doctest)
  add_dependencies(limbeck_plan_tests limbeck_driver_stand_in)
  add_test(NAME convolution_plans COMMAND limbeck_plan_tests)
  set_tests_properties(convolution_plans PROPERTIES
    ENVIRONMENT_MODIFICATION "LD_LIBRARY_PATH=path_list_prepend:${CMAKE_CURRENT_BINARY_DIR}/driver_stand_in")
  if(LIMBECK_BENCH)
    add_executable(bench_cuda bench/bench_cuda.cpp bench/device_timer.cpp)
    target_link_libraries(bench_cuda PRIVATE limbeck limbeck_flags)
  endif()
endif()

# The GPU sources of all layers, without the files that call cuDNN and cuBLASLt.
get_property(emulated GLOBAL PROPERTY LIMBECK_CUDA_SOURCES)
list(FILTER emulated EXCLUDE REGEX "cudnn|cublaslt|nvtx|library\\.cpp$")
set(kernels ${emulated})
list(FILTER kernels INCLUDE REGEX "\\.cu$")
set_source_files_properties(${kernels} PROPERTIES LANGUAGE CXX)

add_library(limbeck_emulated OBJECT ${emulated}
  cuda_emulation/emulator.cpp
  cuda_emulation/runtime.cpp
  cuda_emulation/stand_ins.cpp)
target_include_directories(limbeck_emulated BEFORE PRIVATE cuda_emulation)
target_link_libraries(limbeck_emulated PRIVATE limbeck_flags limbeck_usage)
target_compile_options(limbeck_emulated PRIVATE
  -x c++ -Wno-unknown-pragmas -Wno-clobbered
  $<$<CONFIG:Release>:-O1>                               # the tests wait for the compiler more than for the kernels
  -U_FORTIFY_SOURCE                                      # its longjmp does not know fibers
  # An index outside of a shared array; a vector at an address that a GPU would refuse.
  -fsanitize=bounds,alignment -fno-sanitize-recover=bounds,alignment)

add_executable(limbeck_cuda_emulated_tests ${cuda_test_sources} cuda/test_cuda_emulation.cpp
  $<TARGET_OBJECTS:limbeck_cases> $<TARGET_OBJECTS:limbeck_emulated>
  $<TARGET_OBJECTS:limbeck_core> $<TARGET_OBJECTS:limbeck_ops> $<TARGET_OBJECTS:limbeck_nn>
  $<TARGET_OBJECTS:limbeck_models> $<TARGET_OBJECTS:limbeck_distill> $<TARGET_OBJECTS:limbeck_datasets>)
target_include_directories(limbeck_cuda_emulated_tests BEFORE PRIVATE cuda_emulation)
target_link_libraries(limbeck_cuda_emulated_tests PRIVATE limbeck_usage limbeck_flags doctest::doctest -fsanitize=bounds,alignment)

# limbeck_emulated_doctest(NAME FILTER...): as limbeck_doctest, with the emulated device.
function(limbeck_emulated_doctest name)
  add_test(NAME ${name} COMMAND limbeck_cuda_emulated_tests ${ARGN})
  set_tests_properties(${name} PROPERTIES FAIL_REGULAR_EXPRESSION "test cases: +0 ")
endfunction()
limbeck_emulated_doctest(cuda_emulated "--source-file=*test_cuda_cases.cpp" "--test-case-exclude=cases of *")
foreach(unit IN LISTS cuda_units ITEMS cuda_emulation)
  limbeck_emulated_doctest(emulated_${unit} "--source-file=*test_${unit}.cpp")
endforeach()
foreach(family IN LISTS families)
  limbeck_emulated_doctest(cuda_emulated_${family} "--test-case=cases of ${family} on*")
endforeach()

# The program itself with the emulated device, for tests/cli/test_device.sh.
find_package(CLI11 REQUIRED)
get_property(onnx_target GLOBAL PROPERTY LIMBECK_ONNX_TARGET)
if(onnx_target)
  find_package(Protobuf QUIET)
  find_package(ONNX QUIET)
endif()
add_executable(limbeck_emulated_app ${PROJECT_SOURCE_DIR}/apps/main.cpp $<TARGET_OBJECTS:limbeck_apps>
  $<TARGET_OBJECTS:limbeck_embedding> $<TARGET_OBJECTS:limbeck_emulated>
  $<TARGET_OBJECTS:limbeck_core> $<TARGET_OBJECTS:limbeck_ops> $<TARGET_OBJECTS:limbeck_nn>
  $<TARGET_OBJECTS:limbeck_models> $<TARGET_OBJECTS:limbeck_distill> $<TARGET_OBJECTS:limbeck_datasets>)
target_link_libraries(limbeck_emulated_app PRIVATE limbeck_usage limbeck_flags CLI11::CLI11 nlohmann_json::nlohmann_json
  ${onnx_target} -fsanitize=bounds,alignment)
add_test(NAME cli_device COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cli/test_device.sh $<TARGET_FILE:limbeck_emulated_app>)

# The programs that measure, with the emulated device: a rehearsal of scripts/gpu_check.sh where there is no card.
if(LIMBECK_BENCH)
  foreach(name bench_cuda bench_losses)
    add_executable(${name}_emulated EXCLUDE_FROM_ALL bench/${name}.cpp bench/device_timer.cpp
      $<TARGET_OBJECTS:limbeck_emulated> $<TARGET_OBJECTS:limbeck_core> $<TARGET_OBJECTS:limbeck_ops>
      $<TARGET_OBJECTS:limbeck_nn> $<TARGET_OBJECTS:limbeck_models> $<TARGET_OBJECTS:limbeck_distill>
      $<TARGET_OBJECTS:limbeck_datasets>)
    target_include_directories(${name}_emulated BEFORE PRIVATE cuda_emulation)
    target_link_libraries(${name}_emulated PRIVATE limbeck_usage limbeck_flags -fsanitize=bounds)
  endforeach()
endif()
