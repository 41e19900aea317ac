// What this is: a part of a tensor as a view without history; the common ground of slice, concat and pad2d.
#pragma once

#include "core/tensor.h"

namespace limbeck::ops {

/// Elements begin..end-1 of dimension `dim`, sharing the storage. The caller has checked the range.
/// Shapes:   x any; returns x's shape with end - begin along `dim`
[[nodiscard]] inline Tensor slice_view(const Tensor& x, std::size_t dim, std::int64_t begin, std::int64_t end) {
  Shape shape = x.shape();
  shape[dim] = end - begin;
  const std::int64_t offset = shape[dim] == 0 ? 0 : begin * x.strides()[dim];
  return x.alias(shape, x.strides(), offset);
}

}  // namespace limbeck::ops
