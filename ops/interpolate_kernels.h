// What this is: kernel signatures and tables of the resize ops, and the arithmetic of positions along one axis.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/dispatch.h"
#include "core/tensor.h"

namespace limbeck::ops {

/// Positions along one axis of a bilinear resize.
/// Shapes: none
struct ResizeAxis {
  std::int64_t in, out;
  bool align_corners;

  /// y = (1 - weight) x[lower] + weight x[upper]; at the far border lower = upper and weight = 0.
  struct Sample {
    std::int64_t lower, upper;
    double weight;
  };

  /// The position is a quotient of integers, so floor and remainder are exact and no rounding can move a pixel.
  [[nodiscard]] constexpr Sample sample(std::int64_t o) const noexcept {
    const std::int64_t numerator = align_corners ? o * (in - 1) : std::max<std::int64_t>((2 * o + 1) * in - out, 0);
    const std::int64_t denominator = align_corners ? std::max<std::int64_t>(out - 1, 1) : 2 * out;
    const std::int64_t lower = numerator / denominator;
    if (lower >= in - 1) return {in - 1, in - 1, 0.0};
    return {lower, lower + 1, static_cast<double>(numerator % denominator) / static_cast<double>(denominator)};
  }
};

/// Input position of output o of a nearest resize. I: an integer type that holds products of two sizes.
/// Shapes: none
template <class I>
[[nodiscard]] constexpr I nearest_source(I o, I in, I out) noexcept {
  return o * in / out;
}
/// First output whose source is i or later: the outputs nearest_first(i) <= o < nearest_first(i+1) come from i.
/// Shapes: none
template <class I>
[[nodiscard]] constexpr I nearest_first(I i, I in, I out) noexcept {
  return (i * out + in - 1) / in;
}

/// Shapes: x [N,C,H,W]; y [N,C,OH,OW]
using ResizeBilinearFn = void(const TensorView& x, bool align_corners, const TensorView& y);
/// Shapes: gy [N,C,OH,OW]; gx [N,C,H,W]
using ResizeBilinearBackwardFn = void(const TensorView& gy, bool align_corners, const TensorView& gx);
/// Any element type.
/// Shapes: x [N,C,H,W]; y [N,C,OH,OW]
using ResizeNearestFn = void(const TensorView& x, const TensorView& y);
/// Shapes: gy [N,C,OH,OW]; gx [N,C,H,W]
using ResizeNearestBackwardFn = void(const TensorView& gy, const TensorView& gx);

void resize_bilinear_ref(const TensorView& x, bool align_corners, const TensorView& y);
void resize_bilinear_cpu(const TensorView& x, bool align_corners, const TensorView& y);
void resize_bilinear_cuda(const TensorView& x, bool align_corners, const TensorView& y);
void resize_bilinear_backward_ref(const TensorView& gy, bool align_corners, const TensorView& gx);
void resize_bilinear_backward_cpu(const TensorView& gy, bool align_corners, const TensorView& gx);
void resize_bilinear_backward_cuda(const TensorView& gy, bool align_corners, const TensorView& gx);
void resize_nearest_ref(const TensorView& x, const TensorView& y);
void resize_nearest_cpu(const TensorView& x, const TensorView& y);
void resize_nearest_cuda(const TensorView& x, const TensorView& y);
void resize_nearest_backward_ref(const TensorView& gy, const TensorView& gx);
void resize_nearest_backward_cpu(const TensorView& gy, const TensorView& gx);
void resize_nearest_backward_cuda(const TensorView& gy, const TensorView& gx);

inline constexpr KernelTable<ResizeBilinearFn> kResizeBilinear{"resize_bilinear", resize_bilinear_ref,
                                                               resize_bilinear_cpu, resize_bilinear_cuda};
inline constexpr KernelTable<ResizeBilinearBackwardFn> kResizeBilinearBackward{
    "resize_bilinear", resize_bilinear_backward_ref, resize_bilinear_backward_cpu, resize_bilinear_backward_cuda};
inline constexpr KernelTable<ResizeNearestFn> kResizeNearest{"resize_nearest", resize_nearest_ref, resize_nearest_cpu,
                                                             resize_nearest_cuda};
inline constexpr KernelTable<ResizeNearestBackwardFn> kResizeNearestBackward{
    "resize_nearest", resize_nearest_backward_ref, resize_nearest_backward_cpu, resize_nearest_backward_cuda};

}  // namespace limbeck::ops
