// What this is: similarity-preserving distillation (SP): which samples of a batch excite a network alike.
// What it is not: similarity between the positions of one image (distill/pairwise_kd.h).
// Read next: distill/batch_similarity_kd_ref.cpp (the formula).
#pragma once

#include "core/tensor.h"

namespace limbeck::distill {

/// Difference of the normalised similarity matrices of the batch.
/// Formula:  F = one row of C H W numbers per sample; K = F F^T [N,N]; G[i,:] = K[i,:] / max(||K[i,:]||_2, 1e-12);
///           ||G_S - G_T||_F^2 / N^2
/// Shapes:   student [N,C,H,W] or [N,C], teacher any shape of the same N; returns [] (0-d)
/// Types:    f32/bf16 in any mix, or f64(ref) both; products summed in f32 over runs of 2048 elements, runs in f64;
///           returns f32 (f64 for f64). Autocast: full, without a cast.
/// Units:    none
/// Gradient: of the student: sum_j (dK_ij + dK_ji) F_j, dK = (d - G (G.d)) / ||K[i,:]|| row by row, d = 2 (G_S - G_T) / N^2.
///           dK[i,:] is 0 where ||K[i,:]|| is up to 1e-12 (a sample of zeros). Saved: itself. With N = 1 loss and gradient
///           are 0: there is nothing to compare.
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element, bf16 within 2e-2. Finite for +-1e4;
///           equal maps give exactly 0. Repeats bit for bit with any number of threads.
///           Cost: the student is read twice, the teacher once, the gradient written once; N + 4 flop per element of either
///           map and 2 N per element of the gradient. Scratch: N^2 doubles for each of up to 32 blocks.
/// Throws:   a teacher that requires grad; different N.
/// Source:   Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, eq. 2-4, as in torchdistill.
[[nodiscard]] Tensor batch_similarity_kd(const Tensor& student, const Tensor& teacher);

}  // namespace limbeck::distill
