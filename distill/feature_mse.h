// What this is: the squared distance between two feature maps, value and gradient in one sweep. Behind an adapter it
//   is FitNets, behind a channel MLP the channel-wise transformation (CT), behind a masked generator MGD.
// What it is not: the adapters; the loss classes in distill/loss_features.cpp own them.
// Read next: distill/loss_features.cpp.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace limbeck::distill {

enum class FeatureReduction : std::uint8_t {
  kSumPerImage,  ///< sum / N: grows with C H W, hence weights like 2e-5 (CT, MGD)
  kMean,         ///< sum / (N C H W) (FitNets as in CIRKD)
  kPerPosition   ///< sum / (N H W): C times the mean (TorchDistiller's channel-wise loss without a softmax)
};

struct FeatureMseOptions {
  FeatureReduction reduction = FeatureReduction::kMean;
};

/// Squared difference of two maps.
/// Formula:  sum (s - t)^2 / N   or / (N C H W)   or / (N H W)
/// Shapes:   student, teacher [N,C,H,W] (or any equal shape of at least one dimension); returns [] (0-d)
/// Types:    f32/bf16 in any mix, or f64(ref) both; 1024 elements at a time in f32, these in f64; returns f32 (f64 for f64).
///           Autocast: full, without a cast.
/// Units:    squared activations
/// Gradient: of the student: 2 (s - t) over the same number. Saved: itself.
/// Cost:     both maps read once, the gradient written once; no scratch.
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element, bf16 within 2e-2. Finite for +-1e4;
///           equal maps give exactly 0.
/// Throws:   a teacher that requires grad; shapes that differ (the message names both); kPerPosition of a vector.
/// Source:   Romero et al., "FitNets", ICLR 2015, eq. 3; sum / N as in the released code of MGD (Yang et al., ECCV 2022).
[[nodiscard]] Tensor feature_mse(const Tensor& student, const Tensor& teacher, const FeatureMseOptions& options = {});

}  // namespace limbeck::distill
