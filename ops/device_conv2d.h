// What this is: a convolution of a frozen network on a GPU: bias (usually a folded batch norm), residual and activation in the
//   same pass where cuDNN can (core/cuda/cudnn_convolution_plan.h), else one after the other.
// What it is not: differentiable, or aware of later changes of the weights; nn/fused.h renews it when they change.
// Read next: ops/packed_conv2d.h, its counterpart on the CPU.
#pragma once

#include "core/tensor.h"
#include "ops/activation.h"
#include "ops/conv2d.h"

namespace limbeck::ops {

/// Convolution for inference, with weights kept on the device in the type that they are needed in.
/// Formula:  y = act(conv2d(x, w) + b + residual)
/// Shapes:   w [O,I/G,KH,KW]; b [O]
/// Types:    `compute` is f32 or bf16; w and b are f32
/// Error:    f32 1e-5, bf16 2e-2, of the largest value
/// Throws:   shapes or options that conv2d rejects; w or b of another type.
class DeviceConv2d {
 public:
  DeviceConv2d(const Tensor& w, const Tensor& b, const Conv2dOptions& options, Activation act, DType compute,
               Device device);

  /// x and residual are converted to the compute type if they have another one.
  /// Shapes:   x [N,I,H,W]; residual [N,O,OH,OW] or undefined; returns [N,O,OH,OW] in the compute type
  /// Gradient: none. Throws if recording is on and x or residual requires a gradient.
  [[nodiscard]] Tensor operator()(const Tensor& x, const Tensor& residual = {}) const;

 private:
  Tensor w_, b_;
  Conv2dOptions options_;
  Activation act_;
  DType compute_;
};

/// The dense or grouped convolution of it; w has the type of the maps, bias that or f32.
/// Shapes:   as DeviceConv2d
void device_conv2d_cuda(const TensorView& x, const TensorView& w, const TensorView& bias, const TensorView& residual,
                        Activation act, const Conv2dOptions& options, const TensorView& y);

}  // namespace limbeck::ops
