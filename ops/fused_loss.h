// What this is: the autograd node of a loss whose kernel computes value and gradient in one sweep.
// Why: the gradient of such a loss needs exactly what its value needs (the logits in cache, the softmax sums), so
//   computing both at once reads the maps once and keeps no probabilities. What remains for backward is a scalar factor.
// Read next: ops/cross_entropy.cpp, distill/pixel_kd.cpp.
#pragma once

#include "core/autograd.h"
#include "core/backward_pass.h"
#include "ops/elementwise_kernels.h"

namespace limbeck::ops {

/// Holds d(loss)/d(input 0) and multiplies it by the gradient of the loss that arrives (the weight of this term).
/// Shapes:   gradient: that of input 0
class FusedLossNode : public Node {
 public:
  Tensor gradient;  ///< f32, bf16 or f64; nobody else refers to it

  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) final {
    if (gradient.device().is_meta()) {
      gx[0] = Tensor::empty_like(gradient);
      return;
    }
    // On the CPU the factor is at hand, and it is usually 1. On a GPU looking at it would mean waiting for the device; there the
    // kernel looks, and does nothing where it works in place.
    if (gradient.device().is_cpu() && gy[0].item() == 1.0) {
      // The engine calls release() before it passes the gradient on, which makes it the sole owner; with a retained
      // graph it is not, and copies before it writes.
      gx[0] = gradient;
      return;
    }
    const bool in_place = gradient.device().is_cuda() && !graph_is_retained();
    gx[0] = in_place ? gradient : Tensor::empty_like(gradient);
    kScaleBy(gradient.device(), gradient.dtype(), gradient.view(), gy[0].view(), gx[0].view());
  }
  void release() final { gradient = Tensor(); }
};

/// The type of a loss over inputs of this type: f64 stays, everything else gives f32.
/// Shapes:   none
[[nodiscard]] inline DType loss_dtype(DType input) noexcept { return input == DType::kF64 ? DType::kF64 : DType::kF32; }

}  // namespace limbeck::ops
