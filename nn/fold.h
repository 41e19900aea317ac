// What this is: batch norm folded into the weights in front of it, for tensors that no layer owns.
// Read next: nn/fused.h, which does the same for layers and keeps the result.
#pragma once

#include "nn/fused.h"

namespace limbeck::nn {

/// The tensors of a batch norm in inference.
struct NormTensors {
  Tensor gamma, beta, mean, var;  ///< [C]
  double eps = 1e-5;
};
/// The same for tensors; `bias` may be undefined.
/// Formula: w' = w gamma / sqrt(var + eps),  b' = (b - mean) gamma / sqrt(var + eps) + beta
/// Shapes:  weight [out, ...]; see FoldedWeights
[[nodiscard]] FoldedWeights fold(const Tensor& weight, const Tensor& bias, const NormTensors& norm);

}  // namespace limbeck::nn
