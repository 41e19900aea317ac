// What this is: the objective of the feature autoencoder of knowledge adaptation (KA): a map that can be restored from its
//   code, and a code of few numbers.
// What it is not: the autoencoder (models/autoencoder.h), or the losses that use the code (distill/ka_adapt.h,
//   distill/ka_affinity.h).
// Read next: distill/ka_autoencoder_loss_ref.cpp (the formula).
#pragma once

#include "core/tensor.h"

namespace limbeck::distill {

struct KaAutoencoderOptions {
  double alpha = 1e-7;          ///< weight of the code's magnitudes
  bool sum_over_batch = false;  ///< do not divide the magnitudes by N: torchdistill's form, which grows with the batch
};

/// Mean squared error of the reconstruction and the code's l1 norm.
/// Formula:  sum (Phi - R)^2 / (N C H W) + alpha sum |E| / N   (sum_over_batch: alpha sum |E|);
///           Phi = teacher's map, E = code of Phi, R = reconstruction from E
/// Shapes:   reconstruction, map [N,C,H,W], equal; code [N,D,h,w]; returns [] (0-d)
/// Types:    f32/bf16 in any mix, or f64(ref) all; f32 within runs of 1024 numbers, f64 across; returns f32 (f64 for
///           f64). Autocast: full, without a cast.
/// Gradient: of the reconstruction 2 (R - Phi) / (N C H W) and of the code alpha sign(E) / N, 0 where E = 0. Saved: both.
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element, bf16 within 2e-2. Finite for +-1e4.
///           Cost: 4 flop, 2 reads and 1 write per number of the map; 2 flop, 1 read and 1 write per number of the code.
/// Throws:   a map that requires grad; shapes that differ; another N of the code; alpha < 0.
/// Source:   He et al., "Knowledge Adaptation for Efficient Semantic Segmentation", CVPR 2019, eq. 1. The means are a
///           choice: the paper sums; torchdistill takes the mean of the squares and sums the magnitudes over the batch.
///           alpha is printed there as 10e-7 and read as 1e-7, as torchdistill does.
[[nodiscard]] Tensor ka_autoencoder_loss(const Tensor& reconstruction, const Tensor& code, const Tensor& map,
                                         const KaAutoencoderOptions& options = {});

}  // namespace limbeck::distill
