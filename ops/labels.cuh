// What this is: labels of any integer type inside of kernels.
#pragma once

#include "core/cuda/kernel.cuh"

namespace limbeck::ops {

/// Dense label maps, or none.
struct LabelReader {
  const void* data = nullptr;
  DType dtype = DType::kU8;
  long long ignore = 255;

  __device__ long long at(std::size_t pixel) const {
    switch (dtype) {
      case DType::kU8: return static_cast<const std::uint8_t*>(data)[pixel];
      case DType::kI32: return static_cast<const std::int32_t*>(data)[pixel];
      default: return static_cast<const std::int64_t*>(data)[pixel];
    }
  }
  /// Without labels every pixel counts.
  __device__ bool counts(std::size_t pixel) const { return data == nullptr || at(pixel) != ignore; }
};

}  // namespace limbeck::ops
