// What this is: ops that move elements without computing: cast, clone, reshape, permute, flatten; and the helpers with
//   which every other op obeys autocast.
// What it is not: Tensor::copy_as(), Tensor::dense() and Tensor::alias(), which do the same without a gradient.
// Read next: ops/copy.cpp, core/autocast.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "core/autocast.h"
#include "core/memory.h"
#include "core/tensor.h"

namespace limbeck::ops {

/// Converts the element type; the input itself if it already has it.
/// Formula:  y = round(x); to bf16: nearest even; floating to integer: towards zero, and to the nearest number that the
///           type holds (NaN: 0)
/// Shapes:   x any; returns the same shape
/// Types:    any to any. Autocast: keep.
/// Gradient: of x when both types are floating: the gradient converted back. Nothing saved.
/// Error:    exact up to the rounding of the target type.
[[nodiscard]] Tensor cast(const Tensor& x, DType dtype);

/// An independent dense copy that stays on the tape.
/// Shapes:   x any; returns the same shape, default layout
/// Types:    any. Autocast: keep.
/// Gradient: of x: the identity. Nothing saved.
[[nodiscard]] Tensor clone(const Tensor& x);

/// The same elements, in logical row-major (NCHW) order, under another shape.
/// Shapes:   x any; `shape` has the same number of elements; one entry may be -1 and is then computed
/// Types:    any. Autocast: keep.
/// Gradient: of x. Nothing saved.
/// Throws:   the element counts differ; more than one -1.
/// Source:   the behaviour of torch.reshape: a view where the strides allow it, otherwise a copy. A channels-last map
///           flattened to [N, C*H*W] is a copy; its permute({0,2,3,1}) reshaped to [N, H*W, C] is a view.
[[nodiscard]] Tensor reshape(const Tensor& x, const Shape& shape);

/// Reorders dimensions: y.size(i) = x.size(dims[i]). Always a view.
/// Shapes:   x of any rank; `dims` is a permutation of 0..rank-1
/// Types:    any. Autocast: keep.
/// Gradient: of x. Nothing saved.
/// Throws:   `dims` is not a permutation.
[[nodiscard]] Tensor permute(const Tensor& x, const Shape& dims);

/// Merges the dimensions from `start` on into one.
/// Shapes:   x [d0, .., dk]; returns [d0, .., d(start-1), d(start) * .. * dk]
/// Types:    any. Autocast: keep.
/// Gradient: of x. Nothing saved.
/// Throws:   `start` is not a dimension of x.
[[nodiscard]] Tensor flatten(const Tensor& x, std::int64_t start = 1);

// --- autocast helpers -------------------------------------------------------------------------------------------
// The first lines of an op's glue. All of them return their argument when autocast is off, and never touch f64,
// integers, or undefined tensors, so gradient checks and labels pass through unchanged.

/// `x` cast as `policy` asks: kLow to bf16, kFull to f32, kKeep not at all.
/// Shapes:   x any; returns the same shape
/// Gradient: of x, through cast().
[[nodiscard]] Tensor autocast(CastPolicy policy, const Tensor& x);

/// All tensors cast to the widest type among them: f32 as soon as one of them is f32.
/// Shapes:   any; the shapes stay
/// Gradient: of all, through cast().
[[nodiscard]] PooledVector<Tensor> autocast_widest(std::span<const Tensor> tensors);

/// As above for a fixed number of tensors: `const auto [ac, bc] = autocast_widest({&a, &b});`
/// Shapes:   any; the shapes stay
template <std::size_t N>
[[nodiscard]] std::array<Tensor, N> autocast_widest(const Tensor* const (&tensors)[N]) {  // NOLINT: braced list
  std::array<Tensor, N> out;
  for (std::size_t i = 0; i < N; ++i) out[i] = *tensors[i];
  if (!AutocastGuard::enabled()) return out;
  const PooledVector<Tensor> cast_list = autocast_widest(std::span<const Tensor>(out));
  for (std::size_t i = 0; i < N; ++i) out[i] = cast_list[i];
  return out;
}

/// Checks that two tensors of a binary op have the same floating type; the message names both and the two ways out.
/// Shapes:   any
/// Throws:   different or non-floating types.
void check_same_float(const char* op, const Tensor& a, const Tensor& b);

/// Checks that a tensor is defined and floating.
/// Shapes:   any
/// Throws:   an undefined tensor or another type.
void check_float(const char* op, const Tensor& x);

/// Dimension `dim` of a tensor of rank `rank`, negative counted from the end.
/// Shapes:   none
/// Throws:   no such dimension.
[[nodiscard]] std::size_t check_dim(const char* op, std::int64_t dim, std::int64_t rank);

}  // namespace limbeck::ops
