// What this is: change of the size of maps by bilinear or nearest interpolation.
// What it is not: pooling (ops/pool2d.h) or the resizing of 8-bit images (datasets/).
// Read next: ops/interpolate_kernels.h (which pixels an output takes), ops/interpolate_ref.cpp.
#pragma once

#include <array>
#include <cstdint>

#include "core/tensor.h"

namespace limbeck::ops {

/// Bilinear interpolation to `size` = {OH,OW}. An input that has this size already is returned as it is.
/// Formula:  along each axis  src = dst (in-1)/(out-1), 0 if out = 1                  (align_corners)
///                            src = max((dst + 1/2) in/out - 1/2, 0)                  (otherwise)
///           y = (1-t) x[k] + t x[min(k+1, in-1)],  k = floor(src), t = src - k.  No low-pass filter when shrinking.
/// Shapes:   x [N,C,H,W]; returns [N,C,OH,OW]
/// Types:    f32/bf16/f64(ref); positions are exact rationals, weights f32. Autocast: keep.
/// Gradient: of x, collected per input pixel (no atomics). Nothing saved.
/// Error:    f32 1e-5, bf16 2e-2 against the f64 reference.
/// Throws:   rank other than 4; a size below 1.
/// Source:   the behaviour of torch.nn.functional.interpolate(mode="bilinear", antialias=False). Code bases disagree on
///           align_corners; ONNX calls the two "align_corners" and "half_pixel".
[[nodiscard]] Tensor resize_bilinear(const Tensor& x, std::array<std::int64_t, 2> size, bool align_corners);

/// Nearest neighbour interpolation to `size` = {OH,OW}. An input that has this size already is returned as it is.
/// Formula:  y[i,j] = x[floor(i H/OH), floor(j W/OW)]
/// Shapes:   x [N,C,H,W] or, for label maps, [N,H,W]; returns the same with OH, OW
/// Types:    any, also integers. Autocast: keep.
/// Gradient: of a floating x: the sum over the outputs that took the pixel. Nothing saved.
/// Error:    exact; gradient f32 1e-5, bf16 2e-2.
/// Throws:   another rank; a size below 1.
/// Source:   the behaviour of torch.nn.functional.interpolate(mode="nearest").
[[nodiscard]] Tensor resize_nearest(const Tensor& x, std::array<std::int64_t, 2> size);

}  // namespace limbeck::ops
