// What this is: knowledge distillation per pixel: the student's class probabilities follow the teacher's.
// What it is not: channel-wise distillation, whose softmax runs over the positions of a channel (distill/channel_kd.h).
// Read next: distill/README.md (all losses in one table), distill/pixel_kd_ref.cpp (the formulas).
#pragma once

#include <cstdint>
#include <string_view>

#include "core/tensor.h"

namespace limbeck::distill {

/// How the sum over pixels is reduced. Published code uses all four under the name "KD"; they differ by the factors
/// C, H*W and N, so a weight means nothing without the name of its reduction.
enum class PixelKdReduction : std::uint8_t {
  kMeanAll,         ///< sum KL / (N C H W), no tau^2
  kPerPixel,        ///< tau^2 sum KL / (number of valid pixels): does not change with the crop or the batch
  kBatchMean,       ///< tau^2 sum KL / N: grows with H W
  kSkdCrossEntropy  ///< sum -p_T ln p_S / (H W), summed over the batch, no tau^2
};

/// "mean_all", "per_pixel", "batch_mean", "skd_cross_entropy": the names in configurations.
/// Shapes:   none
[[nodiscard]] std::string_view name_of(PixelKdReduction reduction);
/// The reduction of that name; ConfigError listing the names otherwise.
/// Shapes:   none
[[nodiscard]] PixelKdReduction parse_pixel_kd_reduction(std::string_view name);

struct PixelKdOptions {
  double tau = 1;  ///< temperature, > 0
  PixelKdReduction reduction = PixelKdReduction::kPerPixel;
  std::int64_t ignore_index = 255;  ///< only with labels
};

/// Divergence of the student's class distribution from the teacher's, pixel by pixel.
/// Formula:  kl_i = sum_c p_T (ln p_T - ln p_S), p = softmax over c of x_i / tau; summed over pixels and scaled as
///           PixelKdReduction says (kSkdCrossEntropy: -p_T ln p_S in place of kl)
/// Shapes:   student, teacher [N,C,H,W] or [N,C], equal; labels [N,H,W] or [N] u8/i32/i64, or undefined; returns [] (0-d)
/// Types:    f32/bf16 in any mix, or f64(ref) both; f32 inside, pixels summed in f64; returns f32 (f64 for f64).
///           Autocast: full, without a cast: bf16 maps are read as they are and the gradient is bf16.
/// Units:    nats (times tau^2 where the reduction has it)
/// Gradient: of the student: factor / tau (p_S - p_T). Value and gradient come from one sweep over both maps; the gradient
///           is kept, no probabilities are. Pixels whose label is ignore_index give 0 to both; if all do, loss and
///           gradient are 0.
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element, bf16 within 2e-2. Finite for logits up
///           to +-1e4; equal maps give exactly 0 (except kSkdCrossEntropy, whose value is then the teacher's entropy).
/// Throws:   a teacher that requires grad; tau <= 0; shapes that differ (the message names both).
/// Source:   Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2. Per pixel: Liu et al.,
///           "Structured Knowledge Distillation for Semantic Segmentation", CVPR 2019, section 3.1. The reductions are those
///           of released code: IFVD and TorchDistiller (kMeanAll), CIRKD (kPerPixel), MMRazor (kBatchMean), SKD
///           (kSkdCrossEntropy).
[[nodiscard]] Tensor pixel_kd(const Tensor& student, const Tensor& teacher, const PixelKdOptions& options = {},
                              const Tensor& labels = {});

}  // namespace limbeck::distill
