#include "core/cuda/cudnn.h"

#include <array>
#include <cstdlib>
#include <mutex>
#include <string_view>

#include "core/cuda/runtime.h"

namespace limbeck::cuda {

const Library& cudnn_library() {
  static const Library library("cuDNN 9", {"libcudnn.so.9", "libcudnn.so"});
  return library;
}

void check_cudnn(cudnnStatus_t status, const char* call) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  static auto* const text = cudnn_library().function<decltype(cudnnGetErrorString)>("cudnnGetErrorString");
  static auto* const reason = cudnn_library().function<decltype(cudnnGetLastErrorString)>("cudnnGetLastErrorString");
  std::array<char, 512> why{};
  reason(why.data(), why.size());
  fail(current_op(), "{} on {}: {}{}{}", call, current_device().to_string(), text(status), why[0] != 0 ? ": " : "",
       why.data());
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

bool tf32_allowed() {
  static const bool allowed = [] {
    const char* value = std::getenv("LIMBECK_TF32");
    return value != nullptr && std::string_view(value) == "1";
  }();
  return allowed;
}

}  // namespace limbeck::cuda
