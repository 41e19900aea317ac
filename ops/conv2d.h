// What this is: 2-D convolution, dense or grouped.
// What it is not: the inference-only convolution with folded batch norm (ops/packed_conv2d.h), the transposed one
//   (ops/conv_transpose2d.h).
// Read next: ops/conv2d_ref.cpp (the formula as loops), ops/conv2d_cpu.cpp (which fast kernel runs), ops/tile_gemm.h.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "core/tensor.h"

namespace limbeck::ops {

/// Geometry of a convolution; each pair is {vertical, horizontal}.
/// Shapes:   none
struct Conv2dOptions {
  std::array<std::int64_t, 2> stride{1, 1};
  std::array<std::int64_t, 2> padding{0, 0};   ///< zeros added on both sides
  std::array<std::int64_t, 2> dilation{1, 1};  ///< distance between kernel taps; 1 is an ordinary convolution
  std::int64_t groups = 1;                     ///< channel blocks that do not see each other

  friend bool operator==(const Conv2dOptions&, const Conv2dOptions&) = default;
  /// "stride 2x2, padding 1x1, dilation 1x1, groups 1", for error messages
  [[nodiscard]] std::string to_string() const;
};

/// Cross-correlation of x with w, as deep learning calls convolution.
/// Formula:  y[n,o,p,q] = b[o] + sum_{i,r,s} w[o,i,r,s] * x[n, g*I/G + i, p*stride - padding + r*dilation, q*...],
///           g = the group of output channel o; x is 0 outside of the map
/// Shapes:   x [N,I,H,W] any dense format; w [O,I/G,KH,KW]; b [O] or undefined; returns [N,O,OH,OW] with
///           OH = (H + 2 padding - dilation (KH-1) - 1) / stride + 1, rounded down
/// Types:    f32/bf16/f64(ref); accumulates in f32. For bf16 x the weights stay f32 and are rounded to bf16 inside.
///           The result has the type of x. Autocast: low.
/// Gradient: of x (type of x), w and b (their own type: f32 for bf16 x); saves x and w.
/// Error:    1e-5 in f32 and 2e-2 in bf16, of the largest value, against the f64 reference.
/// Throws:   ranks, channel counts, groups or types that do not fit; an empty result.
/// Source:   the behaviour of torch.nn.functional.conv2d.
[[nodiscard]] Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& b = {}, const Conv2dOptions& options = {});

/// Checks the arguments of a convolution and returns the shape of its result.
/// Shapes:   as conv2d
/// Throws:   as conv2d; messages begin with [where].
[[nodiscard]] Shape conv2d_output_shape(const char* where, const Shape& x, const Shape& w,
                                        const Conv2dOptions& options);

/// True if every channel is its own group with one filter, so that the depthwise kernels apply.
/// Shapes:   x [N,C,H,W]; w [C,1,KH,KW]
[[nodiscard]] bool is_depthwise(const Shape& x, const Shape& w, const Conv2dOptions& options) noexcept;

}  // namespace limbeck::ops
