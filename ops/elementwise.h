// What this is: ops that compute every element on its own, with broadcasting of two operands, and two in-place helpers.
// What it is not: the fused activation of batch norm and packed convolution (ops/activation.h).
// Read next: ops/elementwise_functors.h (value and derivative of each op), ops/elementwise.cpp (the glue).
//
// Common to all:
//   Types:    f32/bf16/f64(ref), computed in f32 for bf16; integers are an error.
//   Gradient: of every floating operand. What is saved is named below; adding, subtracting and scaling save nothing.
//   Error:    f32 within 1e-5 of the f64 reference relative to the largest element, bf16 within 2e-2.
//   NaN:      goes through every op, also relu and clamp.
//   Throws:   undefined, non-floating or (two operands) differently typed tensors; shapes that do not broadcast.
#pragma once

#include "core/tensor.h"

namespace limbeck::ops {

// --- two operands. Shapes broadcast as in NumPy: aligned at the last dimension, a size of 1 is repeated. Autocast: widest.

/// Sum of two tensors.
/// Formula:  y = a + b
/// Shapes:   a, b broadcast; returns the broadcast shape
/// Gradient: ga = sum of gy over the dimensions along which a was repeated, gb likewise. Nothing saved.
[[nodiscard]] Tensor add(const Tensor& a, const Tensor& b);
/// Difference of two tensors.
/// Formula:  y = a - b
/// Shapes:   a, b broadcast; returns the broadcast shape
[[nodiscard]] Tensor sub(const Tensor& a, const Tensor& b);
/// Product, element by element.
/// Formula:  y = a b
/// Shapes:   a, b broadcast, e.g. [N,C,H,W] with [N,C,1,1]; returns the broadcast shape
/// Gradient: saves a and b.
[[nodiscard]] Tensor mul(const Tensor& a, const Tensor& b);
/// Quotient, element by element.
/// Formula:  y = a / b
/// Shapes:   a, b broadcast; returns the broadcast shape
/// Gradient: saves a and b.
[[nodiscard]] Tensor div(const Tensor& a, const Tensor& b);
/// The larger of two elements.
/// Formula:  y = max(a, b)
/// Shapes:   a, b broadcast; returns the broadcast shape
/// Gradient: to the larger operand, half to each at a tie; saves a and b.
[[nodiscard]] Tensor maximum(const Tensor& a, const Tensor& b);
/// The smaller of two elements.
/// Formula:  y = min(a, b)
/// Shapes:   a, b broadcast; returns the broadcast shape
/// Gradient: to the smaller operand, half to each at a tie; saves a and b.
[[nodiscard]] Tensor minimum(const Tensor& a, const Tensor& b);

// --- one operand ----------------------------------------------------------------------------------------------------

/// Formula:  y = x + value
/// Shapes:   x any; returns the same. Autocast: keep.
[[nodiscard]] Tensor add_scalar(const Tensor& x, double value);
/// Formula:  y = value x
/// Shapes:   x any; returns the same. Autocast: keep.
[[nodiscard]] Tensor mul_scalar(const Tensor& x, double value);
/// Formula:  y = -x
/// Shapes:   x any; returns the same. Autocast: keep.
[[nodiscard]] Tensor neg(const Tensor& x);
/// Formula:  y = max(x, 0)
/// Shapes:   x any; returns the same. Autocast: keep.
/// Gradient: 0 at x = 0; saves y.
[[nodiscard]] Tensor relu(const Tensor& x);
/// Formula:  y = min(max(x, 0), 6)
/// Shapes:   x any; returns the same. Autocast: keep.
/// Gradient: 0 at x = 0 and x = 6; saves y.
[[nodiscard]] Tensor relu6(const Tensor& x);
/// Formula:  y = x for x > 0, slope x otherwise
/// Shapes:   x any; returns the same. Autocast: keep.
/// Gradient: `slope` at x = 0; saves x.
[[nodiscard]] Tensor leaky_relu(const Tensor& x, double slope);
/// Formula:  y = 1 / (1 + e^-x)
/// Shapes:   x any; returns the same. Autocast: keep.
/// Gradient: saves y.
[[nodiscard]] Tensor sigmoid(const Tensor& x);
/// Formula:  y = (e^x - e^-x) / (e^x + e^-x)
/// Shapes:   x any; returns the same. Autocast: keep.
/// Gradient: saves y.
[[nodiscard]] Tensor tanh(const Tensor& x);
/// Formula:  y = e^x
/// Shapes:   x any; returns the same. Autocast: full.
/// Gradient: saves y.
[[nodiscard]] Tensor exp(const Tensor& x);
/// Natural logarithm; -infinity at 0, NaN below.
/// Formula:  y = ln x
/// Shapes:   x any; returns the same. Autocast: full.
/// Gradient: saves x.
[[nodiscard]] Tensor log(const Tensor& x);
/// Formula:  y = x^(1/2)
/// Shapes:   x any; returns the same. Autocast: full.
/// Gradient: infinite at 0; saves y.
[[nodiscard]] Tensor sqrt(const Tensor& x);
/// Formula:  y = x^2
/// Shapes:   x any; returns the same. Autocast: full.
/// Gradient: saves x.
[[nodiscard]] Tensor square(const Tensor& x);
/// Formula:  y = |x|
/// Shapes:   x any; returns the same. Autocast: keep.
/// Gradient: sign(x), 0 at 0; saves x.
[[nodiscard]] Tensor abs(const Tensor& x);
/// Formula:  y = x^exponent
/// Shapes:   x any; returns the same. Autocast: full.
/// Gradient: saves x.
[[nodiscard]] Tensor pow_scalar(const Tensor& x, double exponent);
/// Formula:  y = min(max(x, low), high)
/// Shapes:   x any; returns the same. Autocast: keep.
/// Gradient: 1 for low <= x <= high (both ends included), 0 outside; saves x.
/// Throws:   low > high.
[[nodiscard]] Tensor clamp(const Tensor& x, double low, double high);

// --- in place, not differentiable -------------------------------------------------------------------------------------

/// Adds to a tensor in place; for optimizers and running averages.
/// Formula:  destination += alpha source
/// Shapes:   destination any; source broadcasts to it
/// Types:    a source of another floating type is converted first.
/// Throws:   a destination that requires grad while recording is on; a source that would enlarge the destination.
void add_(const Tensor& destination, const Tensor& source, double alpha = 1.0);
/// Scales a tensor in place.
/// Formula:  destination *= value
/// Shapes:   destination any
/// Throws:   a destination that requires grad while recording is on.
void mul_scalar_(const Tensor& destination, double value);

}  // namespace limbeck::ops
