// What this is: sums, means, maxima over some or all dimensions, and argmax.
// What it is not: losses (they reduce inside their own pass) and pooling.
// Read next: ops/reduce.cpp, ops/reduce_cpu.cpp.
//
// Note [repeatable sums]
//   Every sum is cut into blocks that depend on the shape alone, added in float over short runs and in double across
//   them, and the blocks are added in order. The result is the same for any number of threads.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace limbeck::ops {

/// Sum of all elements.
/// Formula:  y = sum_i x_i
/// Shapes:   x any; returns [] (0-d)
/// Types:    f32/bf16/f64(ref); a bf16 input gives an f32 result. Autocast: keep (the sum is f32 anyway).
/// Gradient: of x: gy everywhere. Nothing saved.
/// Error:    1e-6 relative to the sum of magnitudes.
[[nodiscard]] Tensor sum(const Tensor& x);
/// Mean of all elements.
/// Formula:  y = (1/n) sum_i x_i
/// Shapes:   x any, not empty; returns [] (0-d)
/// Types:    as sum
/// Gradient: of x: gy / n everywhere. Nothing saved.
/// Throws:   x without elements.
[[nodiscard]] Tensor mean(const Tensor& x);

/// Sum over the dimensions `dims`.
/// Formula:  y = sum over dims of x
/// Shapes:   x any; `dims` distinct, negative from the end; returns x's shape without them, or with 1 if `keepdim`
/// Types:    as above: bf16 gives f32
/// Gradient: of x: gy repeated. Nothing saved.
/// Throws:   a dimension that does not exist or is named twice.
[[nodiscard]] Tensor sum(const Tensor& x, const Shape& dims, bool keepdim = false);
/// Mean over the dimensions `dims`.
/// Formula:  y = (1/n) sum over dims of x, n = product of the sizes of dims
/// Shapes:   as sum
/// Types:    as sum
/// Gradient: of x: gy / n repeated. Nothing saved.
[[nodiscard]] Tensor mean(const Tensor& x, const Shape& dims, bool keepdim = false);

/// Largest element over the dimensions `dims`; NaN if there is one.
/// Formula:  y = max over dims of x
/// Shapes:   as sum; the reduced dimensions must not be empty
/// Types:    f32/bf16/f64(ref); the type stays. Autocast: keep.
/// Gradient: of x: gy at the maximum, divided equally among ties; saves x and y.
[[nodiscard]] Tensor amax(const Tensor& x, const Shape& dims, bool keepdim = false);

/// Index of the largest element along `dim`; the lowest index at a tie, the first NaN if there is one.
/// Formula:  y = arg max over dim of x
/// Shapes:   x any; returns x's shape without `dim`: logits [N,K,H,W] with dim 1 give class ids [N,H,W]
/// Types:    f32/bf16/f64(ref); returns i64. Autocast: keep.
/// Gradient: none.
[[nodiscard]] Tensor argmax(const Tensor& x, std::int64_t dim);

}  // namespace limbeck::ops
