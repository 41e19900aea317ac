// What this is: cutting a range out of a dimension.
// Read next: ops/slice.cpp, ops/concat.h (the opposite).
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace limbeck::ops {

/// The elements start..end-1 along dimension `dim`, as a view on the same storage.
/// Formula:  y[.., i, ..] = x[.., start + i, ..]
/// Shapes:   x any; returns x's shape with end - start along `dim`; negative dim, start and end count from the end
/// Types:    any. Autocast: keep.
/// Gradient: of x: gy in its place, zero elsewhere. Nothing saved.
/// Throws:   a range that is not inside 0..size, or runs backwards. Unlike Python nothing is clipped silently.
[[nodiscard]] Tensor slice(const Tensor& x, std::int64_t dim, std::int64_t start, std::int64_t end);

}  // namespace limbeck::ops
