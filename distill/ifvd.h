// What this is: intra-class feature variation distillation (IFVD): how far a pixel's feature is from the mean of its class.
// What it is not: similarity between pixels (distill/pairwise_kd.h); here every pixel is compared with one centre.
// Read next: distill/ifvd_ref.cpp (the formula).
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace limbeck::distill {

struct IfvdOptions {
  std::int64_t ignore_index = 255;
};

/// Difference of the cosines between features and the centres of their classes.
/// Formula:  mu[n,k] = sum of F over the pixels of class k in image n / (their number + 1e-6);
///           sim(p) = F_p . mu / (max(||F_p||, 1e-8) max(||mu||, 1e-8)), mu that of the class of p;
///           sum over labelled pixels of (sim_S - sim_T)^2 / (N H W)
/// Shapes:   student [N,C,H,W], teacher [N,D,H,W]; C and D may differ; labels [N,H,W] u8/i32/i64; returns [] (0-d)
/// Types:    f32/bf16 in any mix, or f64(ref) both; a pixel's channels in f32, centres and sums over pixels in f64;
///           returns f32 (f64 for f64). Autocast: full, without a cast.
/// Units:    none: squared difference of cosines, at most 4
/// Gradient: of the student, also through the centres. Ignored pixels give 0 to value and gradient (they would be their own
///           centre: cosine 1 on both sides); the divisor still counts them. Saved: itself.
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element, bf16 within 2e-2. Finite for +-1e4;
///           equal maps give exactly 0, as does a batch without labels.
/// Throws:   a teacher that requires grad; N, H or W that differ; labels of another shape or type; a label outside 0..255
///           that is not ignore_index.
/// Source:   Wang et al., "Intra-class Feature Variation Distillation for Semantic Segmentation", ECCV 2020, and the
///           authors' code for the reduction and the guards.
[[nodiscard]] Tensor ifvd(const Tensor& student, const Tensor& teacher, const Tensor& labels,
                          const IfvdOptions& options = {});

}  // namespace limbeck::distill
