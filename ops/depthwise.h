// What this is: depthwise convolution, one filter per channel; conv2d() calls it when the groups ask for it.
// Why own kernels: the operation is limited by memory, not arithmetic, and the libraries' bf16 and dilated backward
//   passes are one to two orders of magnitude slower than the memory allows.
// Read next: ops/depthwise_ref.cpp, then ops/depthwise_cpu.cpp.
#pragma once

#include "core/tensor.h"
#include "ops/conv2d.h"

namespace limbeck::ops {

/// Convolves every channel with its own kernel.
/// Formula:  y[n,c,p,q] = b[c] + sum_{r,s} w[c,0,r,s] * x[n, c, p*stride - padding + r*dilation, q*...]
/// Shapes:   x [N,C,H,W] any dense format; w [C,1,KH,KW]; b [C] or undefined; options.groups = C; returns [N,C,OH,OW]
/// Types:    f32/bf16/f64(ref); accumulates in f32; w and b are f32 for bf16 x and are not rounded. Autocast: low.
/// Gradient: of x (type of x), w and b (their own type); saves x and w.
/// Error:    1e-5 in f32 and 2e-2 in bf16, of the largest value, against the f64 reference.
/// Throws:   as conv2d; groups or filters that are not one per channel.
/// Source:   the behaviour of torch.nn.functional.conv2d with groups = channels.
[[nodiscard]] Tensor depthwise_conv2d(const Tensor& x, const Tensor& w, const Tensor& b, const Conv2dOptions& options);

}  // namespace limbeck::ops
