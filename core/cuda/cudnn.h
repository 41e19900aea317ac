// What this is: cuDNN as limbeck uses it: calls that throw, and the handle of a device.
// Read next: core/cuda/cudnn_convolution_plan.h.
#pragma once

#include <cudnn.h>

#include "core/cuda/library.h"
#include "core/tensor.h"

namespace limbeck::cuda {

[[nodiscard]] const Library& cudnn_library();
/// Throws Error with the name of the call and cuDNN's text.
void check_cudnn(cudnnStatus_t status, const char* call);
/// The handle of the current device, bound to its stream.
[[nodiscard]] cudnnHandle_t cudnn_handle();
/// True if f32 convolutions and products may be computed in TF32 (10 bits of mantissa): LIMBECK_TF32=1. Off by default,
/// so that f32 means the same as on the CPU.
[[nodiscard]] bool tf32_allowed();

/// LIMBECK_CUDNN(cudnnCreate, &handle) calls it, and throws if it fails.
#define LIMBECK_CUDNN(name, ...)                                                                    \
  do {                                                                                              \
    static auto* const function = ::limbeck::cuda::cudnn_library().function<decltype(name)>(#name); \
    ::limbeck::cuda::check_cudnn(function(__VA_ARGS__), #name);                                     \
  } while (false)

}  // namespace limbeck::cuda
