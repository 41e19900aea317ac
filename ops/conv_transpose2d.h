// What this is: transposed 2-D convolution ("deconvolution"), the upsampling layer of autoencoders.
// It has no kernels of its own: its forward is the data gradient of conv2d, its data gradient is conv2d.
// Read next: ops/conv2d_kernels.h.
#pragma once

#include <array>
#include <cstdint>

#include "core/tensor.h"

namespace limbeck::ops {

/// Geometry; each pair is {vertical, horizontal}.
/// Shapes:   none
struct ConvTranspose2dOptions {
  std::array<std::int64_t, 2> stride{1, 1};
  std::array<std::int64_t, 2> padding{0, 0};         ///< rows and columns removed on both sides of the result
  std::array<std::int64_t, 2> output_padding{0, 0};  ///< rows and columns added at the bottom and right
  std::array<std::int64_t, 2> dilation{1, 1};
  std::int64_t groups = 1;
};

/// Spreads every pixel of x over a kernel-sized patch of the result.
/// Formula:  y[n, o, h*stride - padding + r*dilation, w*...] += x[n,i,h,w] * w[i,o,r,s]; plus b[o]
/// Shapes:   x [N,I,H,W] any dense format; w [I,O/G,KH,KW]; b [O] or undefined; returns [N,O,OH,OW] with
///           OH = (H-1) stride - 2 padding + dilation (KH-1) + output_padding + 1
/// Types:    f32/bf16/f64(ref); accumulates in f32. For bf16 x the weights stay f32 and are rounded to bf16 inside.
///           Autocast: low.
/// Gradient: of x (type of x), w and b (their own type); saves x and w.
/// Error:    1e-5 in f32 and 2e-2 in bf16, of the largest value, against the f64 reference.
/// Throws:   ranks, channel counts, groups or types that do not fit; output_padding not below stride or dilation.
/// Source:   the behaviour of torch.nn.functional.conv_transpose2d.
[[nodiscard]] Tensor conv_transpose2d(const Tensor& x, const Tensor& w, const Tensor& b = {},
                                      const ConvTranspose2dOptions& options = {});

}  // namespace limbeck::ops
