// What this is: pair-wise similarity distillation: which places of an image look alike to the teacher should look alike
//   to the student. Cosines between all pairs of (pooled) positions are compared.
// What it is not: similarity between samples (distill/batch_similarity_kd.h) or between channels
//   (distill/inter_channel_kd.h).
// Read next: distill/pairwise_kd_ref.cpp (the formula), distill/affinity_pairs.h (how the pairs are computed).
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace limbeck::distill {

struct PairwiseKdOptions {
  /// Share of the map that one max-pooling window covers, per axis: kernel = stride = max(1, int(scale H)), the last window
  /// may hang over. 0: use `kernel`.
  double scale = 0.5;
  std::int64_t kernel = 2;  ///< window of the pooling when scale is 0; 1: no pooling
  bool detach_norm = true;  ///< the length of a feature vector counts as a constant in the gradient
};

/// Difference of the cosines between all pairs of positions.
/// Formula:  P = max-pooled map, M' positions; f_i = P_i / (||P_i||_2 + 1e-8); a_ij = f_i . f_j;
///           sum_{n,i,j} (a_S - a_T)^2 / (N M'^2)
/// Shapes:   student [N,C,H,W], teacher [N,D,H,W]; C and D may differ; returns [] (0-d)
/// Types:    f32/bf16 in any mix, or f64(ref) both; bf16 maps are widened, products in f32 over runs of 256, runs in f64;
///           returns f32 (f64 for f64). Autocast: full, without a cast.
/// Units:    none: squared difference of cosines, at most 4
/// Gradient: of the student, to the position that won its window: 4/(N M'^2) sum_j (a_S - a_T)_ij f_j / ||P_i||, minus its
///           part along f_i unless detach_norm. The gradient with detach_norm is that of the released code, and not the
///           derivative of the value. A vector of length 0 gets 0 (its derivative would be of the order of 1e8).
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element, bf16 within 2e-2. Finite for +-1e4;
///           equal maps give exactly 0. Repeats bit for bit with any number of threads.
///           Cost per image with c = max(C, D): both maps read once, the gradient written once, and 8 M' c^2 flop where
///           M' >= c, else 2 M'^2 (c + C), so that no matrix is larger than 2c x 2c. Scratch: 4 M' (3 C + D) bytes for the
///           pooled maps, and that of ka_affinity (distill/ka_affinity.h) with M' positions.
/// Throws:   a teacher that requires grad; N, H or W that differ; scale outside [0,1]; kernel < 1.
/// Source:   Liu et al., "Structured Knowledge Distillation for Semantic Segmentation", CVPR 2019, eq. 2. scale 0.5 with the
///           detached norm is the authors' code (and the "SP" term of AICSD); kernel 2 without it is
///           CIRKD (whose norm is limited below by 1e-12 instead of raised by 1e-8).
[[nodiscard]] Tensor pairwise_kd(const Tensor& student, const Tensor& teacher, const PairwiseKdOptions& options = {});

}  // namespace limbeck::distill
