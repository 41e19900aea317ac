// What this is: inter-channel correlation distillation (ICKD): which channels (with logits: which classes) fire together.
// What it is not: the divergence between the channels' distributions (ICSD), or similarity between positions
//   (distill/pairwise_kd.h).
// Read next: distill/inter_channel_kd_ref.cpp (the formula).
#pragma once

#include "core/tensor.h"

namespace limbeck::distill {

struct InterChannelKdOptions {
  /// Divide by C N^2 instead of C N: the weight then does not have to change with the batch, as in torchdistill.
  bool divide_by_n_squared = false;
};

/// Difference of the normalised correlation matrices of the channels.
/// Formula:  X = one row of H W numbers per channel; K_n = X_n X_n^T [C,C]; G[i,:] = K[i,:] / max(||K[i,:]||_2, 1e-12);
///           sum_n ||G_S - G_T||_F^2 / (C N)   (or / (C N^2))
/// Shapes:   student, teacher [N,C,H,W]; H and W may differ between the two; returns [] (0-d)
/// Types:    f32/bf16 in any mix, or f64(ref) both; products summed in f32 over runs of 256 positions, runs in f64; on
///           matrix units a bf16 map is multiplied by the slopes as two bf16 numbers each (16 bits); returns f32 (f64 for
///           f64). Autocast: full, without a cast.
/// Units:    none
/// Gradient: of the student: (dK + dK^T) X, dK = (d - G (G.d)) / ||K[i,:]|| row by row, d = dL/dG.
///           dK[i,:] is 0 where ||K[i,:]|| is up to 1e-12 (a channel of zeros). Saved: itself.
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element, bf16 within 2e-2. Finite for +-1e4;
///           equal maps give exactly 0.
/// Throws:   a teacher that requires grad; N or C that differ.
/// Source:   Liu et al., "Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation", ICCV 2021;
///           on logits and divided by C N as in the released AICSD code, by C N^2 as in torchdistill.
[[nodiscard]] Tensor inter_channel_kd(const Tensor& student, const Tensor& teacher,
                                      const InterChannelKdOptions& options = {});

}  // namespace limbeck::distill
