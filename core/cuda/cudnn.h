// What this is: cuDNN as limbeck uses it: calls that throw, the handle of a device, descriptors that free themselves.
// What it is not: convolutions (ops/conv2d_cudnn.cpp).
#pragma once

#include <cudnn.h>

#include <cstdint>
#include <span>
#include <string>

#include "core/cuda/library.h"
#include "core/tensor.h"

namespace limbeck::cuda {

[[nodiscard]] const Library& cudnn_library();
/// Throws Error with the name of the call and cuDNN's text.
void check_cudnn(cudnnStatus_t status, const char* call);
/// The handle of the current device, bound to its stream.
[[nodiscard]] cudnnHandle_t cudnn_handle();
/// How a convolution is named in core/choices.h: `what`, the card, the library, the numbers of the problem.
[[nodiscard]] std::string choice_key(const char* what, std::span<const std::int64_t> numbers);
/// True if f32 convolutions and products may be computed in TF32 (10 bits of mantissa): LIMBECK_TF32=1. Off by default,
/// so that f32 means the same as on the CPU.
[[nodiscard]] bool tf32_allowed();

/// LIMBECK_CUDNN(cudnnCreate, &handle) calls it, and throws if it fails.
#define LIMBECK_CUDNN(name, ...)                                                                    \
  do {                                                                                              \
    static auto* const function = ::limbeck::cuda::cudnn_library().function<decltype(name)>(#name); \
    ::limbeck::cuda::check_cudnn(function(__VA_ARGS__), #name);                                     \
  } while (false)

/// Descriptor of a dense channels-last map.
class TensorDescriptor {
 public:
  TensorDescriptor(DType dtype, const Shape& nchw);
  TensorDescriptor(const TensorDescriptor&) = delete;
  TensorDescriptor& operator=(const TensorDescriptor&) = delete;
  ~TensorDescriptor();
  [[nodiscard]] cudnnTensorDescriptor_t get() const noexcept { return descriptor_; }

 private:
  cudnnTensorDescriptor_t descriptor_ = nullptr;
};

/// Descriptor of weights stored as [O][KH][KW][I].
class FilterDescriptor {
 public:
  FilterDescriptor(DType dtype, const Shape& oihw);
  FilterDescriptor(const FilterDescriptor&) = delete;
  FilterDescriptor& operator=(const FilterDescriptor&) = delete;
  ~FilterDescriptor();
  [[nodiscard]] cudnnFilterDescriptor_t get() const noexcept { return descriptor_; }

 private:
  cudnnFilterDescriptor_t descriptor_ = nullptr;
};

}  // namespace limbeck::cuda
