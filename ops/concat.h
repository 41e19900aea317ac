// What this is: joining tensors along a dimension.
// Read next: ops/concat.cpp, ops/slice.h (the opposite).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>

#include "core/tensor.h"

namespace limbeck::ops {

/// Joins tensors along dimension `dim`.
/// Formula:  y = [x0, x1, ..] along `dim`
/// Shapes:   x_i equal except along `dim`, e.g. [N,C0,H,W], [N,C1,H,W] -> [N,C0+C1,H,W]; negative `dim` from the end
/// Types:    any, all the same. Autocast: widest.
/// Gradient: of every floating input: its part of gy. Nothing saved.
/// Throws:   no tensors; shapes or types that do not fit.
[[nodiscard]] Tensor concat(std::span<const Tensor> tensors, std::int64_t dim);
/// As above, `concat({a, b}, 1)`.
/// Shapes:   as above
[[nodiscard]] inline Tensor concat(std::initializer_list<Tensor> tensors, std::int64_t dim) {
  return concat(std::span<const Tensor>(tensors.begin(), tensors.size()), dim);
}

}  // namespace limbeck::ops
