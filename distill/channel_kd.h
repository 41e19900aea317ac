// What this is: channel-wise knowledge distillation (CWD): each channel becomes a distribution over the image, and the
//   student looks where the teacher looks.
// What it is not: distillation of class probabilities per pixel (distill/pixel_kd.h). The adapter that gives a student
//   feature map the teacher's channels belongs to the distiller, not to the loss.
// Read next: distill/README.md (all losses in one table), distill/channel_kd_ref.cpp (the formulas).
#pragma once

#include <cstdint>
#include <string_view>

#include "core/tensor.h"

namespace limbeck::distill {

/// What is compared. The method is kChannel; the others are switches of its released code, kept for comparison. They are
/// other losses of this folder up to a factor and run there.
enum class ChannelKdNorm : std::uint8_t {
  kChannel,     ///< softmax over the positions of a channel
  kSpatial,     ///< softmax over the channels of a position, tau^2 sum KL / (N H W): pixel_kd, kPerPixel
  kNone,        ///< the maps, sum (s - t)^2 / (N H W): feature_mse, kPerPosition
  kChannelMean  ///< the mean of a channel over its positions, sum (mean s - mean t)^2 / (N C): feature_mse of the means
};

/// "channel", "spatial", "none", "channel_mean": the names in configurations.
/// Shapes:   none
[[nodiscard]] std::string_view name_of(ChannelKdNorm norm);

struct ChannelKdOptions {
  double tau = 4;                   ///< temperature, > 0; without effect where there is no softmax
  bool cross_entropy_form = false;  ///< leave out the teacher's entropy: same gradient, larger value; kChannel only
  ChannelKdNorm norm = ChannelKdNorm::kChannel;
  /// kChannel only: divide by this number of channels instead of C. mmsegmentation-distiller takes the channels that the
  /// student's map had in front of its adapter, which makes the loss C / channels times larger.
  std::int64_t divide_by_channels = 0;
};

/// Divergence of where a channel is active in the student from where it is active in the teacher.
/// Formula:  tau^2 / (N C) sum_{n,c} sum_m p_T (ln p_T - ln p_S), p = softmax over the positions m of x[n,c] / tau
///           (cross_entropy_form: -p_T ln p_S in the inner sum; divide_by_channels: that number for C in the factor;
///           other norms: see ChannelKdNorm)
/// Shapes:   student, teacher [N,C,H,W], equal; returns [] (0-d)
/// Types:    f32/bf16 in any mix, or f64(ref) both; f32 inside, sums over positions in blocks, blocks in f64; returns f32
///           (f64 for f64). Autocast: full, without a cast: bf16 maps are read as they are and the gradient is bf16.
/// Units:    nats times tau^2, mean over channels and samples (not over positions)
/// Gradient: of the student: tau / (N C) (p_S - p_T). Value and gradient come from two visits of both maps: statistics,
///           then the gradient. No probabilities are kept.
/// Error:    f32 within 1e-5 of the f64 reference relative to the largest element, bf16 within 2e-2. Finite for logits up
///           to +-1e4; equal maps give exactly 0 (except cross_entropy_form, whose value is then tau^2 times the mean
///           entropy of the teacher's channels).
/// Throws:   a teacher that requires grad; tau <= 0; shapes that differ (the message names both); an option of kChannel
///           together with another norm.
/// Source:   Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021; value and reduction as in
///           the authors' TorchDistiller, except that ln p is a log-softmax (theirs underflows). The cross-entropy form and
///           divide_by_channels are those of mmsegmentation-distiller. The other norms are TorchDistiller's, kSpatial with
///           the divergence, the rest with the squared error; its "none" indexes the batch and so compares the first
///           image alone, here all images count.
[[nodiscard]] Tensor channel_kd(const Tensor& student, const Tensor& teacher, const ChannelKdOptions& options = {});

}  // namespace limbeck::distill
