// What this is: kernel signatures and tables of pooling, and the arithmetic of windows along one axis.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/dispatch.h"
#include "core/tensor.h"

namespace limbeck::ops {

/// The windows along one axis: output o averages (or maximises) the inputs begin(o) <= i < end(o), and input i is
/// covered by the outputs first_cover(i) <= o <= last_cover(i), perhaps none. kernel == 0 means adaptive bins.
/// I: a signed integer that holds products of `in` and `out`.
/// Shapes: none
template <class I>
struct BasicPoolAxis {
  I in, out;
  I kernel = 0, stride = 1, padding = 0;
  bool count_padding = true;

  [[nodiscard]] constexpr bool adaptive() const noexcept { return kernel == 0; }
  /// First position of a strided window, inside or outside of the map.
  [[nodiscard]] constexpr I origin(I o) const noexcept { return o * stride - padding; }
  [[nodiscard]] constexpr I begin(I o) const noexcept { return adaptive() ? o * in / out : std::max<I>(origin(o), 0); }
  [[nodiscard]] constexpr I end(I o) const noexcept {
    return adaptive() ? ((o + 1) * in + out - 1) / out : std::min(origin(o) + kernel, in);
  }
  /// What the sum along this axis is divided by.
  [[nodiscard]] constexpr I divisor(I o) const noexcept {
    if (adaptive() || !count_padding) return end(o) - begin(o);
    return std::min(origin(o) + kernel, in + padding) - origin(o);
  }
  [[nodiscard]] constexpr I first_cover(I i) const noexcept {
    if (adaptive()) return i * out / in;
    const I before = i + padding - kernel;  // windows that start at or before it have ended
    return before < 0 ? 0 : before / stride + 1;
  }
  [[nodiscard]] constexpr I last_cover(I i) const noexcept {
    return adaptive() ? ((i + 1) * out - 1) / in : std::min((i + padding) / stride, out - 1);
  }
};
using PoolAxis = BasicPoolAxis<std::int64_t>;

/// y = maxima; `indices` (u8 or i32, or undefined) gets their place a * k_w + b inside of the unclipped window.
/// Shapes: x [N,C,H,W]; y, indices [N,C,OH,OW]
using MaxPoolFn = void(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y,
                       const TensorView& indices);
/// gx[i] = sum of gy over the windows whose maximum is at i.
/// Shapes: gy, indices [N,C,OH,OW]; gx [N,C,H,W]
using MaxPoolBackwardFn = void(const TensorView& gy, const TensorView& indices, const PoolAxis& rows,
                               const PoolAxis& columns, const TensorView& gx);
/// y = means of the windows.
/// Shapes: x [N,C,H,W]; y [N,C,OH,OW]
using AvgPoolFn = void(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y);
/// gx[i] = sum of gy / divisor over the windows that cover i.
/// Shapes: gy [N,C,OH,OW]; gx [N,C,H,W]
using AvgPoolBackwardFn = void(const TensorView& gy, const PoolAxis& rows, const PoolAxis& columns,
                               const TensorView& gx);

void max_pool_ref(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y,
                  const TensorView& indices);
void max_pool_cpu(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y,
                  const TensorView& indices);
void max_pool_cuda(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y,
                   const TensorView& indices);
void max_pool_backward_ref(const TensorView& gy, const TensorView& indices, const PoolAxis& rows,
                           const PoolAxis& columns, const TensorView& gx);
void max_pool_backward_cpu(const TensorView& gy, const TensorView& indices, const PoolAxis& rows,
                           const PoolAxis& columns, const TensorView& gx);
void max_pool_backward_cuda(const TensorView& gy, const TensorView& indices, const PoolAxis& rows,
                            const PoolAxis& columns, const TensorView& gx);
void avg_pool_ref(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y);
void avg_pool_cpu(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y);
void avg_pool_cuda(const TensorView& x, const PoolAxis& rows, const PoolAxis& columns, const TensorView& y);
void avg_pool_backward_ref(const TensorView& gy, const PoolAxis& rows, const PoolAxis& columns, const TensorView& gx);
void avg_pool_backward_cpu(const TensorView& gy, const PoolAxis& rows, const PoolAxis& columns, const TensorView& gx);
void avg_pool_backward_cuda(const TensorView& gy, const PoolAxis& rows, const PoolAxis& columns, const TensorView& gx);

inline constexpr KernelTable<MaxPoolFn> kMaxPool{"max_pool2d", max_pool_ref, max_pool_cpu, max_pool_cuda};
inline constexpr KernelTable<MaxPoolBackwardFn> kMaxPoolBackward{"max_pool2d", max_pool_backward_ref,
                                                                 max_pool_backward_cpu, max_pool_backward_cuda};
// One kernel serves avg_pool2d, adaptive_avg_pool2d and global_avg_pool2d: they differ in their PoolAxis only.
inline constexpr KernelTable<AvgPoolFn> kAvgPool{"avg_pool2d", avg_pool_ref, avg_pool_cpu, avg_pool_cuda};
inline constexpr KernelTable<AvgPoolBackwardFn> kAvgPoolBackward{"avg_pool2d", avg_pool_backward_ref,
                                                                 avg_pool_backward_cpu, avg_pool_backward_cuda};

}  // namespace limbeck::ops
