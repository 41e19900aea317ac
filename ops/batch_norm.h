// What this is: batch normalisation with the activation and the residual sum fused into its passes.
// What it is not: the layer with its buffers (nn/layers.h); the folding of an eval-mode norm into the convolution that
//   comes before it (nn/fused.h, ops/packed_conv2d.h).
// Read next: ops/batch_norm_kernels.h (the steps), ops/batch_norm_ref.cpp (the formulas as plain loops).
#pragma once

#include <functional>

#include "core/tensor.h"
#include "ops/activation.h"

namespace limbeck::ops {

/// Shapes: none
struct BatchNormOptions {
  bool training = false;               ///< statistics of this batch (true) or the running ones (false)
  double momentum = 0.1;               ///< running = (1 - momentum) running + momentum batch
  double eps = 1e-5;                   ///< added to the variance
  Activation act = Activation::kNone;  ///< applied last
  /// Synchronised batch norm: replaces its argument, an f64 tensor, by the sum over all ranks. Called once in the
  /// forward and once in the backward of a training step; empty for one rank.
  std::function<void(const Tensor& sums)> sum_over_ranks = {};
};

/// Normalises every channel, scales and shifts it, adds a residual and applies an activation.
/// Formula:  y = act(gamma (x - mean) / sqrt(var + eps) + beta + residual)
///           training: mean and var over n, h, w of this batch (var divided by M = N*H*W), and
///             running_mean += momentum (mean - running_mean), running_var += momentum (var M/(M-1) - running_var)
///           otherwise: mean = running_mean, var = running_var
/// Shapes:   x [N,C,H,W] any dense format, or [N,C]; gamma, beta, running_mean, running_var [C]; residual as x;
///           returns the shape of x. gamma and beta may be undefined (1 and 0), as may residual, and in training the
///           running statistics.
/// Types:    x f32/bf16 with f32 parameters and buffers, or all f64 (ref). Statistics are accumulated in f32 in short
///           runs around a shift taken from the data, and combined in f64: a large mean does not cancel.
///           Autocast: keep; a residual of another type is cast to the type of x.
/// Gradient: with respect to x, gamma, beta and residual. Saves x and five numbers per channel; y only when an
///           activation follows a residual (otherwise the mask is recomputed from x). ReLU6 passes where 0 < y < 6.
/// Error:    f32 2e-5, bf16 2e-2 against the f64 reference.
/// Throws:   shapes or types that do not fit; training with one value per channel; eval without running statistics.
/// Source:   Ioffe and Szegedy 2015, algorithm 1 and section 3.1; momentum and the unbiased running variance as in
///           torch.nn.BatchNorm2d.
[[nodiscard]] Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& running_mean,
                                const Tensor& running_var, const BatchNormOptions& options,
                                const Tensor& residual = {});

}  // namespace limbeck::ops
