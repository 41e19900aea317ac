// What this is: pooling of [N,C,H,W] maps: maximum, average, adaptive average, global average.
// What it is not: a change of size by interpolation (ops/interpolate.h).
// Read next: ops/pool2d_kernels.h (which input positions a window covers), ops/pool2d_ref.cpp.
#pragma once

#include <array>
#include <cstdint>

#include "core/tensor.h"

namespace limbeck::ops {

/// All pairs are {vertical, horizontal}.
/// Shapes: none
struct Pool2dOptions {
  std::array<std::int64_t, 2> kernel{2, 2};
  std::array<std::int64_t, 2> stride{0, 0};   ///< 0: equal to the kernel
  std::array<std::int64_t, 2> padding{0, 0};  ///< at most half of the kernel
  bool ceil_mode = false;                     ///< a last window that hangs over the border is kept
  bool count_include_pad = true;              ///< average only: padding counts as zeros; false: only real pixels count
};

/// Output size along one axis.
/// Formula:  out = floor_or_ceil((in + 2 padding - kernel) / stride) + 1; with ceil a last window that would start
///           in the far padding is dropped
/// Shapes:   none
[[nodiscard]] std::int64_t pooled_size(std::int64_t in, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                                       bool ceil_mode);

/// Largest value of each window; padding never wins, NaN always does.
/// Formula:  y[n,c,i,j] = max of x[n,c,i s_h - p_h + a, j s_w - p_w + b] over 0 <= a < k_h, 0 <= b < k_w inside of x
/// Shapes:   x [N,C,H,W]; returns [N,C,OH,OW], see pooled_size
/// Types:    f32/bf16/f64(ref). Autocast: keep.
/// Gradient: of x, to the first of equal maxima in row order. Saves the position inside of the window: one byte per
///           output element for kernels of up to 256 positions, otherwise four.
/// Error:    exact.
/// Throws:   rank other than 4; a window that cannot be; an input smaller than the kernel.
/// Source:   the behaviour of torch.nn.MaxPool2d with dilation 1.
[[nodiscard]] Tensor max_pool2d(const Tensor& x, const Pool2dOptions& options);

/// Mean of each window.
/// Formula:  y[n,c,i,j] = sum of the window / divisor; divisor = window positions inside of the padded map, or inside
///           of the map if not count_include_pad
/// Shapes:   x [N,C,H,W]; returns [N,C,OH,OW], see pooled_size
/// Types:    f32/bf16/f64(ref); accumulates in f32, row by row. Autocast: keep.
/// Gradient: of x. Nothing saved.
/// Error:    f32 1e-5, bf16 2e-2 against the f64 reference.
/// Throws:   as max_pool2d.
/// Source:   the behaviour of torch.nn.AvgPool2d.
[[nodiscard]] Tensor avg_pool2d(const Tensor& x, const Pool2dOptions& options);

/// Mean of bins that divide the map as evenly as integers allow.
/// Formula:  bin i of n covers floor(i in / n) <= k < ceil((i+1) in / n); bins overlap where n does not divide the input
/// Shapes:   x [N,C,H,W]; size {OH,OW}, also larger than the input; returns [N,C,OH,OW]
/// Types:    as avg_pool2d
/// Gradient: of x. Nothing saved.
/// Error:    as avg_pool2d
/// Throws:   rank other than 4; a size below 1.
/// Source:   the behaviour of torch.nn.AdaptiveAvgPool2d; Zhao et al. 2017 (PSPNet), section 3.2 uses sizes 1, 2, 3, 6.
[[nodiscard]] Tensor adaptive_avg_pool2d(const Tensor& x, std::array<std::int64_t, 2> size);

/// Mean of each channel.
/// Shapes:   x [N,C,H,W]; returns [N,C,1,1]
/// Types:    as avg_pool2d
/// Gradient: of x. Nothing saved.
/// Error:    as avg_pool2d
/// Throws:   rank other than 4.
[[nodiscard]] Tensor global_avg_pool2d(const Tensor& x);

}  // namespace limbeck::ops
