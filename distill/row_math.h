// What this is: sums along the channels of one pixel of a channels-last map, for kernels whose work per pixel is a dot
//   product. f32 lanes within a pixel; callers add pixels in double.
// What it is not: for softmaxes over channels; those turn the pixels on their side (ops/pixel_tile.h).
// Read next: distill/attention_kd_cpu.cpp.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace limbeck::distill {

/// Sum of a[j] b[j].
/// Shapes:   a, b [c]
template <class A, class B>
[[nodiscard]] inline float row_dot(const A* a, const B* b, std::int64_t c) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t j = 0; j < c; ++j) sum += static_cast<float>(a[j]) * static_cast<float>(b[j]);
  return sum;
}

/// Sum of (a[j] - b[j])^2.
/// Shapes:   a, b [c]
template <class A, class B>
[[nodiscard]] inline float row_distance2(const A* a, const B* b, std::int64_t c) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t j = 0; j < c; ++j) {
    const float d = static_cast<float>(a[j]) - static_cast<float>(b[j]);
    sum += d * d;
  }
  return sum;
}

/// y[j] = k x[j].
/// Shapes:   x, y [c]
template <class X, class Y>
inline void row_scale(float k, const X* x, Y* y, std::int64_t c) {
#pragma omp simd
  for (std::int64_t j = 0; j < c; ++j) y[j] = static_cast<Y>(k * static_cast<float>(x[j]));
}

/// y[j] += k x[j].
/// Shapes:   x, y [c]
template <class X, class Y>
inline void row_add(Y k, const X* x, Y* y, std::int64_t c) {
#pragma omp simd
  for (std::int64_t j = 0; j < c; ++j) y[j] += k * static_cast<Y>(static_cast<float>(x[j]));
}

/// Pixels below which another thread does not pay.
/// Shapes:   none
[[nodiscard]] inline std::int64_t pixel_grain(std::int64_t c) noexcept { return 16384 / (c > 0 ? c : 1) + 1; }

}  // namespace limbeck::distill
