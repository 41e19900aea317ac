// What this is: convolution + batch norm + activation (+ residual) as one call; every network is built on it.
// Read next: nn/fused.cpp, ops/packed_conv2d.h.
//
// Note [two ways through conv_bn_act]
//   training (or whenever a gradient may be asked for):
//       conv2d, then one batch-norm pass that also adds the residual and applies the activation, forward and backward.
//   inference (both layers in eval mode, nothing to record):
//       batch norm is folded into the weights, w' = w * gamma / sqrt(var + eps), and one primitive does everything with
//       prepacked weights (on a GPU, with weights in the type they are needed in). The folded weights are cached inside the convolution and rebuilt when the version of
//       any of the tensors they came from changes, so that a student can be evaluated between training steps.
//   Reference runs (f64, ReferenceGuard) and meta tensors always take the first way.
#pragma once

#include "nn/layers.h"

namespace limbeck::nn {

/// act(bn(conv(x)) + residual).
/// Formula:  y = act(gamma * (w*x - mean) / sqrt(var + eps) + beta + residual)
/// Shapes:   x [N, in, H, W]; residual like the result or undefined; returns [N, out, OH, OW]
/// Types:    f32/bf16/f64(ref). Autocast: low for the convolution, statistics f32.
/// Gradient: of x, the weights, gamma, beta, residual, through conv2d and batch_norm; none on the folded way.
/// Error:    the folded way agrees with the other to f32 rounding (tests/test_layers.cpp).
/// Throws:   the conditions of ops::conv2d and ops::batch_norm.
[[nodiscard]] Tensor conv_bn_act(Conv2d& conv, BatchNorm2d& bn, ops::Activation act, const Tensor& x,
                                 const Tensor& residual = {});

/// As conv_bn_act without batch norm: act(conv(x)).
/// Shapes:   x [N, in, H, W]; returns [N, out, OH, OW]
[[nodiscard]] Tensor conv_act(Conv2d& conv, ops::Activation act, const Tensor& x);

/// act(bn(x)) in one pass, for batch norm behind something that is not a Conv2d.
/// Shapes:   x [N, C, H, W]; returns the same
[[nodiscard]] Tensor bn_act(BatchNorm2d& bn, ops::Activation act, const Tensor& x);

/// Weight and bias of a convolution with the batch norm behind it folded in, as f32; for export.
struct FoldedWeights {
  Tensor weight;  ///< [out, in/groups, k, k]
  Tensor bias;    ///< [out]
};
/// Shapes: see FoldedWeights
[[nodiscard]] FoldedWeights fold(const Conv2d& conv, const BatchNorm2d* bn);

/// A convolution without bias, its batch norm and activation, under torchvision's names: "0" and "1" below its own.
/// Shapes: x [N, in, H, W]; residual like the result; returns [N, out, OH, OW]
class ConvBnAct final : public UnaryModule {
 public:
  /// `args.bias` is ignored: batch norm has its own.
  ConvBnAct(const ConvArgs& args, BatchNormArgs bn, ops::Activation act, Generator& generator);
  [[nodiscard]] std::string type() const override { return "ConvBnAct"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override { return conv_bn_act(conv_, bn_, act_, x); }
  /// bn(conv(x)), the value before the activation; for taps.
  [[nodiscard]] Tensor before_activation(const Tensor& x) {
    const ModuleScope scope(*this);
    return conv_bn_act(conv_, bn_, ops::Activation::kNone, x);
  }
  [[nodiscard]] ops::Activation activation() const noexcept { return act_; }
  [[nodiscard]] const Conv2d& conv() const noexcept { return conv_; }
  [[nodiscard]] const BatchNorm2d& bn() const noexcept { return bn_; }

 private:
  Conv2d conv_;
  BatchNorm2d bn_;
  ops::Activation act_;
};

/// The activation as an op of its own.
/// Shapes: any; returns the same
[[nodiscard]] Tensor activate(const Tensor& x, ops::Activation act);

}  // namespace limbeck::nn
