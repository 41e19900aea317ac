// What this is: two ways to look at a tensor that per-pixel kernels need. [N,K] scores become a map of one pixel per
//   sample, so that a kernel is written once, for maps.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace limbeck::ops {

/// A view of rank 2 as a map with H = W = 1; a map, or an undefined view, as it is.
/// Shapes:   v [N,K] or [N,C,H,W]; returns [N,K,1,1] or [N,C,H,W]
[[nodiscard]] inline TensorView as_map(TensorView v) {
  if (!v.shape.empty()) {
    while (v.shape.size() < 4) {
      v.shape.push_back(1);
      v.strides.push_back(0);
    }
  }
  return v;
}

/// Labels of rank 1 as a label map with H = W = 1; other views as they are.
/// Shapes:   v [N] or [N,H,W]; returns [N,1,1] or [N,H,W]
[[nodiscard]] inline TensorView as_label_map(TensorView v) {
  if (!v.shape.empty()) {
    while (v.shape.size() < 3) {
      v.shape.push_back(1);
      v.strides.push_back(0);
    }
  }
  return v;
}

/// Number of pixels of a map.
/// Shapes:   v [N,C,H,W]
[[nodiscard]] inline std::int64_t pixel_count(const TensorView& v) noexcept { return v.n() * v.h() * v.w(); }

/// One label, whatever integer type the map has.
/// Shapes:   v [N,H,W]
[[nodiscard]] inline std::int64_t label_at(const TensorView& v, std::int64_t n, std::int64_t h, std::int64_t w) {
  switch (v.dtype) {
    case DType::kU8: return v.at<std::uint8_t>(n, h, w);
    case DType::kI32: return v.at<std::int32_t>(n, h, w);
    case DType::kI64: return v.at<std::int64_t>(n, h, w);
    default: fail("labels", "got {}, expected u8, i32 or i64", name_of(v.dtype));
  }
}

}  // namespace limbeck::ops
