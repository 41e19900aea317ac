// What this is: category-wise similarity distillation (CSD), one half of double-similarity distillation (DSD): where two
//   classes compete for the same place.
// What it is not: the other half, over attention maps of layers (psd_kd in distill/attention_kd.h).
// Read next: distill/csd_kd_ref.cpp (the formula).
#pragma once

#include "core/tensor.h"

namespace limbeck::distill {

struct CsdKdOptions {
  double tau = 4;  ///< temperature of the softmax over positions, > 0
};

/// Difference of the overlaps of the classes' distributions over the image.
/// Formula:  Z = average of 2x2 windows (stride 2, windows that hang over count their real pixels); P[c,:] = softmax over
///           the positions of Z[c] / tau; G = P P^T [C,C]; sum_{n,i,j} (G_S - G_T)^2 / (N C^2)
/// Shapes:   student, teacher [N,C,H,W], equal; returns [] (0-d)
/// Types:    f32/bf16 in any mix, or f64(ref) both; maps in f32, the overlaps G in f64; returns f32 (f64 for f64).
///           Autocast: full, without a cast.
/// Units:    none; G is of the order of 4/(H W), so the value is of the order of its square: weights are large
/// Gradient: of the student: dP = 4/(N C^2) (G_S - G_T) P, dZ = P (dP - P.dP) / tau, spread over the windows.
/// Error:    f32 within 5e-5 of the f64 reference relative to the largest element (both G and dP are differences of nearly
///           equal numbers), bf16 within 2e-2. Finite for +-1e4; equal maps give exactly 0.
/// Throws:   a teacher that requires grad; tau <= 0; shapes that differ.
/// Source:   Feng et al., "Double Similarity Distillation for Semantic Image Segmentation", TIP 2021; pooling, tau 4 and
///           reduction as in CIRKD.
[[nodiscard]] Tensor csd_kd(const Tensor& student, const Tensor& teacher, const CsdKdOptions& options = {});

}  // namespace limbeck::distill
