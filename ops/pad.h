// What this is: a constant border around a feature map or an image.
// What it is not: the padding of convolution and pooling, which is an option of those ops and never stored.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace limbeck::ops {

/// Border in pixels.
struct Pad2d {
  std::int64_t left = 0, right = 0, top = 0, bottom = 0;
};

/// Surrounds the last two dimensions of a map with a constant.
/// Formula:  y[n,c,h+top,w+left] = x[n,c,h,w], `value` elsewhere
/// Shapes:   x [N,C,H,W]; returns [N,C,top+H+bottom,left+W+right]
/// Types:    any. Autocast: keep.
/// Units:    pixels
/// Gradient: of x: the inner part of gy. Nothing saved.
/// Throws:   x not 4-D; a negative border (use slice).
[[nodiscard]] Tensor pad2d(const Tensor& x, const Pad2d& pad, double value = 0.0);

}  // namespace limbeck::ops
