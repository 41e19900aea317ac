// What this is: local similarity distillation (LOCAL): how different a pixel is from its eight neighbours.
// What it is not: similarity between all pairs of positions (distill/pairwise_kd.h).
// Read next: distill/local_kd_ref.cpp (the formula).
#pragma once

#include "core/tensor.h"

namespace limbeck::distill {

/// Difference of the distances between neighbours.
/// Formula:  d_ij = ||x_i - x_j||_2 over the channels, for the pixels j of the 3x3 neighbourhood of i inside the map;
///           sum_{n,(i,j)} (d_ij(S) - d_ij(T))^2 / number of such pairs (8 H W minus what the border cuts off, times N)
/// Shapes:   student [N,C,H,W], teacher [N,D,H,W]; C and D may differ; returns [] (0-d)
/// Types:    f32/bf16 in any mix, or f64(ref) both; distances in f32, summed in f64; returns f32 (f64 for f64).
///           Autocast: full, without a cast.
/// Units:    squared distance of the maps. For class distributions pass softmax(logits): distances are at most sqrt 2
/// Gradient: of the student: x_i gets 4 / pairs (d(S) - d(T)) (x_i - x_j) / d(S) from each neighbour (a pair counts in both
///           directions); 0 where d(S) is 0. Saved: itself.
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element, bf16 within 2e-2. Finite for +-1e4;
///           equal maps give exactly 0, as does a map of one pixel.
/// Throws:   a teacher that requires grad; N, H or W that differ.
/// Source:   Xie et al., "Improving Fast Segmentation With Teacher-student Learning", BMVC 2018, the local similarity in the
///           8-neighbourhood. No released code and no published loss values were found: that the eight distances are compared
///           one by one and averaged over pairs is this project's reading.
[[nodiscard]] Tensor local_kd(const Tensor& student, const Tensor& teacher);

}  // namespace limbeck::distill
