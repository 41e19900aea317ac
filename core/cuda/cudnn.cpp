#include "core/cuda/cudnn.h"

#include <array>
#include <cstdlib>
#include <mutex>
#include <string_view>

#include "core/cuda/runtime.h"

namespace limbeck::cuda {
namespace {

cudnnDataType_t type_of(DType dtype) {
  if (dtype == DType::kF32) return CUDNN_DATA_FLOAT;
  if (dtype == DType::kBF16) return CUDNN_DATA_BFLOAT16;
  fail("cudnn", "got {}, expected f32 or bf16", name_of(dtype));
}

int size_of_dim(std::int64_t v) {
  LIMBECK_CHECK(v > 0 && v < (std::int64_t{1} << 31), "cudnn", "got a dimension of {}, expected 1 to 2^31", v);
  return static_cast<int>(v);
}

}  // namespace

const Library& cudnn_library() {
  static const Library library("cuDNN 9", {"libcudnn.so.9", "libcudnn.so"});
  return library;
}

void check_cudnn(cudnnStatus_t status, const char* call) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  static auto* const text = cudnn_library().function<decltype(cudnnGetErrorString)>("cudnnGetErrorString");
  fail(current_op(), "{} on {}: {}", call, current_device().to_string(), text(status));
}

cudnnHandle_t cudnn_handle() {
  static std::mutex mutex;
  static auto* handles = new std::array<cudnnHandle_t, 128>{};  // never destroyed: see core/cuda/runtime.cpp
  const std::lock_guard lock(mutex);
  cudnnHandle_t& handle = handles->at(static_cast<std::size_t>(current_device().index));
  if (handle == nullptr) {
    LIMBECK_CUDNN(cudnnCreate, &handle);
    LIMBECK_CUDNN(cudnnSetStream, handle, stream());
  }
  return handle;
}

std::string choice_key(const char* what, std::span<const std::int64_t> numbers) {
  static auto* const version = cudnn_library().function<decltype(cudnnGetVersion)>("cudnnGetVersion");
  return fmt::format("{} | {} | cuDNN {} | tf32 {} | {}", what, static_cast<const char*>(properties().name), version(),
                     tf32_allowed() ? "on" : "off", fmt::join(numbers, " "));
}

bool tf32_allowed() {
  static const bool allowed = [] {
    const char* value = std::getenv("LIMBECK_TF32");
    return value != nullptr && std::string_view(value) == "1";
  }();
  return allowed;
}

TensorDescriptor::TensorDescriptor(DType dtype, const Shape& s) {
  LIMBECK_CUDNN(cudnnCreateTensorDescriptor, &descriptor_);
  LIMBECK_CUDNN(cudnnSetTensor4dDescriptor, descriptor_, CUDNN_TENSOR_NHWC, type_of(dtype), size_of_dim(s[0]),
                size_of_dim(s[1]), size_of_dim(s[2]), size_of_dim(s[3]));
}
TensorDescriptor::~TensorDescriptor() {
  static auto* const destroy =
      cudnn_library().function<decltype(cudnnDestroyTensorDescriptor)>("cudnnDestroyTensorDescriptor");
  destroy(descriptor_);
}

FilterDescriptor::FilterDescriptor(DType dtype, const Shape& s) {
  LIMBECK_CUDNN(cudnnCreateFilterDescriptor, &descriptor_);
  LIMBECK_CUDNN(cudnnSetFilter4dDescriptor, descriptor_, type_of(dtype), CUDNN_TENSOR_NHWC, size_of_dim(s[0]),
                size_of_dim(s[1]), size_of_dim(s[2]), size_of_dim(s[3]));
}
FilterDescriptor::~FilterDescriptor() {
  static auto* const destroy =
      cudnn_library().function<decltype(cudnnDestroyFilterDescriptor)>("cudnnDestroyFilterDescriptor");
  destroy(descriptor_);
}

}  // namespace limbeck::cuda
