// What this is: the difference between the affinities (cosines) of all pairs of positions of two maps, and its gradient:
//   the part that the fast kernels of ka_affinity and of pairwise_kd (on its pooled maps) have in common.
// What it is not: a loss; the callers divide.
// Read next: distill/affinity_pairs.h (the algebra), distill/position_affinity_cpu.cpp.
#pragma once

#include "core/tensor.h"

namespace limbeck::distill {

struct AffinityForm {
  double epsilon;            ///< added to the length of a vector before it is divided by it
  bool rownorm = false;      ///< sum of the norms of the rows of A_S - A_T instead of their squares
  bool detach_norm = false;  ///< the length of a vector counts as a constant in the gradient
};

/// sum_{n,i} ||(A_S - A_T)[i,:]||^2, or without the square; A_ij = f_i . f_j, f_i = x_i / (||x_i|| + epsilon). gstudent =
/// slope times its gradient, or undefined if none is wanted. A vector of length 0 gets 0. Equal maps give exactly 0, value
/// and gradient.
/// Shapes:   student, gstudent [N,C,H,W]; teacher [N,D,H,W]; dense channels-last, f32 or bf16 each
[[nodiscard]] double affinity_difference(const TensorView& student, const TensorView& teacher,
                                         const TensorView& gstudent, const AffinityForm& form, double slope);
/// The same on the GPU; loss = loss_factor times the value, which stays there.
/// Shapes:   as above; loss 0-d f32
void affinity_difference_cuda(const TensorView& student, const TensorView& teacher, const TensorView& gstudent,
                              const AffinityForm& form, double slope, double loss_factor, const TensorView& loss);

}  // namespace limbeck::distill
