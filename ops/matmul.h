// What this is: matrix products, one or a batch, and the fully connected layer.
// Read next: ops/matmul.cpp, ops/matmul_onednn.cpp.
#pragma once

#include "core/tensor.h"

namespace limbeck::ops {

/// Matrix product, of one pair or of a batch of pairs.
/// Formula:  y = A B, A = a or a^T, B = b or b^T
/// Shapes:   a [M,K] (or [K,M] if trans_a), b [K,N] (or [N,K] if trans_b), returns [M,N];
///           or a [B,M,K], b [B,K,N], returns [B,M,N]
/// Types:    f32/bf16/f64(ref); accumulates in f32. Autocast: low.
/// Gradient: of a and b; saves both.
/// Error:    f32 1e-5, bf16 2e-2 relative to the largest element.
/// Throws:   ranks other than 2 and 2 or 3 and 3; inner or batch sizes that differ.
[[nodiscard]] Tensor matmul(const Tensor& a, const Tensor& b, bool trans_a = false, bool trans_b = false);

/// Fully connected layer.
/// Formula:  y = x w^T + b
/// Shapes:   x [N,In], w [Out,In], b [Out] or undefined; returns [N,Out]
/// Types:    f32/bf16/f64(ref); accumulates in f32. Autocast: low for x. With bf16 x the parameters may stay f32: they
///           are rounded for the product, and their gradients are computed and returned in f32.
/// Gradient: of x, w and b; saves x and w.
/// Error:    f32 1e-5, bf16 2e-2 relative to the largest element.
/// Throws:   shapes that do not fit; parameters of another type than x, except f32 for bf16.
[[nodiscard]] Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b = {});

}  // namespace limbeck::ops
