// What this is: steps between convolutions of 8 bits that need no arithmetic beyond the bytes: maximum and bilinear resize of u8 maps. Their
//   results stand for real numbers as their inputs do (ops/quantise.h), because both stay between the numbers they are made from.
// What it is not: the same for other types, with gradients (ops/pool2d.h, ops/interpolate.h).
// Read next: nn/int8_plan.h.
#pragma once

#include <array>
#include <cstdint>

#include "core/tensor.h"
#include "ops/pool2d.h"

namespace limbeck::ops {

/// Largest byte of each window; padding never wins.
/// Shapes:   x u8 [N,C,H,W]; returns u8 [N,C,OH,OW] as max_pool2d
/// Gradient: none
/// Throws:   another type or rank; a window that cannot be.
[[nodiscard]] Tensor max_pool2d_bytes(const Tensor& x, const Pool2dOptions& options);

/// Bilinear resize as resize_bilinear, rounded to the nearest byte, ties to even.
/// Shapes:   x u8 [N,C,H,W]; returns u8 [N,C,size]
/// Gradient: none
/// Throws:   another type or rank; an empty size.
[[nodiscard]] Tensor resize_bilinear_bytes(const Tensor& x, std::array<std::int64_t, 2> size, bool align_corners);

}  // namespace limbeck::ops
